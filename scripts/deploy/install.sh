#!/bin/sh
# usage: install.sh FOLDER      puts what setup.sh has sent to FOLDER in its place
#
# Runs on a node, as root. FOLDER/manifest names all that a node has; what did
# not change was not sent. Prints "changed" if the node had to be started anew,
# "unchanged" if not. WORKMANAGER_PREFIX installs below another root, for tests.
set -eu
umask 077

main() {
	from=$1
	root=${WORKMANAGER_PREFIX:-}
	opt=$root/opt/workmanager
	etc=$root/etc/workmanager
	units=$root/etc/systemd/system
	restart=''

	id workmanager >/dev/null 2>&1 ||
		useradd --system --user-group --home-dir /var/lib/workmanager --no-create-home --shell /usr/sbin/nologin workmanager
	install -d -m 0755 "$opt" "$opt/binaries" "$units"
	install -d -m 0750 -o root -g workmanager "$etc"
	install -d -m 0700 -o workmanager -g workmanager "$etc/keys"

	while read -r sum name; do
		[ -e "$from/$name" ] || continue # it is in its place already
		[ "$(sha256sum <"$from/$name")" = "$sum  -" ] || {
			echo "install.sh: $name did not come over whole: its sum is not $sum" >&2
			exit 1
		}
	done <"$from/manifest"

	while read -r sum name; do
		[ -e "$from/$name" ] || continue
		case $name in
		workmanager) put 0755 root root "$opt/$name" restart ;;
		workmanager-linux-*) put 0755 root root "$opt/binaries/$name" restart ;;
		node.env) put 0640 root workmanager "$etc/$name" restart ;;
		workmanager.service) put 0644 root root "$units/$name" restart ;;
		*.service | *.timer) put 0644 root root "$units/$name" '' ;;
		*.key | *.crt | tokens.json) put 0600 workmanager workmanager "$etc/keys/$name" '' ;; # a running node sees it by itself
		*)
			echo "install.sh: $name has no place" >&2
			exit 1
			;;
		esac
	done <"$from/manifest"

	systemctl daemon-reload
	systemctl enable --quiet workmanager.service
	if [ -n "$restart" ]; then
		systemctl restart workmanager.service
		echo changed
	else
		systemctl start workmanager.service
		echo unchanged
	fi
	# Last: until it is here all is sent and tried again.
	install -m 0600 "$from/manifest" "$etc/manifest.new"
	mv "$etc/manifest.new" "$etc/manifest"
	rm -rf "$from"
}

# put MODE OWNER GROUP PLACE RESTART: by rename, so that nothing half written is
# ever run.
put() {
	install -m "$1" -o "$2" -g "$3" "$from/$name" "$4.new"
	mv "$4.new" "$4"
	restart=$restart$5
}

main "$@"
