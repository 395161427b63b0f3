#!/bin/sh
# Boots a worker of a workmanager fleet. The text is the same for every worker,
# and has no secret: every process on this instance can read it.
set -u

# First of all: this instance ends, whatever goes wrong below. The end is put
# off each minute that the worker runs and a node answers.
systemd-run --quiet --unit=workmanager-limit --on-active=10m systemctl poweroff ||
	shutdown -h +10

nodes='https://10.0.0.1:5000 https://10.0.1.1:5000'
args='--idle-timeout 90s --cutoff-timeout 10m'
prefix=${WORKMANAGER_PREFIX:-} # tests install below it
pause=${WORKMANAGER_PAUSE:-5}
dir=$prefix/opt/workmanager
units=$prefix/etc/systemd/system

end() {
	echo "workmanager: $1: this instance ends" >&2
	systemctl poweroff || shutdown -h now
	exit 1
}

case $(uname -m) in
x86_64) arch=amd64 sum='aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa' ;;
aarch64) arch=arm64 sum='bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb' ;;
*) arch='' sum='' ;;
esac
[ -n "$sum" ] || end "there is no binary for $(uname -m)"

mkdir -p "$dir" "$units" || end "no room for $dir"
umask 022
cat >"$dir/ca.pem" <<'CA'
-----BEGIN CERTIFICATE-----
bm8gcmVhbCBvbmU=
-----END CERTIFICATE-----
CA

# fetch URL FILE: no proxy, no redirect to elsewhere, and only what the CA vouches
# for.
cat >"$dir/fetch" <<'PYTHON'
#!/usr/bin/env python3
import os, shutil, ssl, sys, urllib.request

class Stay(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_):
        return None

url, path = sys.argv[1:]
ca = os.path.join(os.path.dirname(os.path.abspath(sys.argv[0])), "ca.pem")
trust = ca if "BEGIN" in open(ca).read() else None
https = urllib.request.HTTPSHandler(context=ssl.create_default_context(cafile=trust))
try:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), Stay(), https)
    with opener.open(url, timeout=20) as answer, open(path, "wb") as out:
        shutil.copyfileobj(answer, out)
except Exception as error:
    sys.exit(f"workmanager: {url}: {error}")
PYTHON
chmod 755 "$dir/fetch"

# A node may be away for a while. One that has another binary will go on having it:
# three rounds in which all do are enough.
deadline=$(($(date +%s) + 300))
rounds=0 fetched=''
while [ -z "$fetched" ]; do
	away=''
	for node in $nodes; do
		"$dir/fetch" "$node/worker/binary/$arch" "$dir/new" || {
			away=yes
			continue
		}
		if [ "$(sha256sum <"$dir/new")" = "$sum  -" ]; then
			fetched=yes
			break
		fi
		echo "workmanager: $node gave a binary of another sum" >&2
	done
	[ -z "$fetched" ] || break
	[ -n "$away" ] || rounds=$((rounds + 1))
	[ "$rounds" -lt 3 ] || end 'all nodes have another binary than the one to run'
	[ "$(date +%s)" -lt "$deadline" ] || end 'no node gave the right binary'
	sleep "$pause"
done
chmod 755 "$dir/new" || end 'the binary cannot be installed'
mv "$dir/new" "$dir/workmanager" || end 'the binary cannot be installed'

flags=''
for node in $nodes; do
	flags="$flags --node $node"
done

cat >"$units/workmanager-worker.service" <<UNIT
[Unit]
Description=workmanager worker
Wants=network-online.target
After=network-online.target
StartLimitIntervalSec=10min
StartLimitBurst=5
# The instance ends with its worker, however that ends.
SuccessAction=poweroff
FailureAction=poweroff
StartLimitAction=poweroff

[Service]
ExecStart=$dir/workmanager worker --ec2 --ca $dir/ca.pem$flags $args
Restart=on-failure
RestartSec=2
RestartPreventExitStatus=4 5
TimeoutStopSec=30
DynamicUser=yes
NoNewPrivileges=yes
ProtectSystem=strict
ProtectHome=yes
PrivateTmp=yes
PrivateDevices=yes
CapabilityBoundingSet=
UNIT

cat >"$units/workmanager-end.service" <<UNIT
[Unit]
Description=the end of this instance, ten minutes after the last word of a node

[Service]
Type=oneshot
ExecStart=/bin/sh -c "exec systemctl poweroff"
UNIT

cat >"$units/workmanager-end.timer" <<UNIT
[Unit]
Description=the end of this instance, ten minutes after the last word of a node

[Timer]
OnActiveSec=10min
AccuracySec=1s
UNIT

cat >"$dir/renew" <<RENEW
#!/bin/sh
# Puts off the end of this instance if its worker runs and a node answers.
set -eu
systemctl is-active --quiet workmanager-worker.service
for node in $nodes; do
	if "$dir/fetch" "\$node/healthz" /dev/null; then
		systemctl restart workmanager-end.timer
		systemctl stop workmanager-limit.timer || true
		exit 0
	fi
done
exit 1
RENEW
chmod 755 "$dir/renew"

cat >"$units/workmanager-renew.service" <<UNIT
[Unit]
Description=put off the end of this instance

[Service]
Type=oneshot
ExecStart=$dir/renew
UNIT

cat >"$units/workmanager-renew.timer" <<UNIT
[Unit]
Description=put off the end of this instance each minute

[Timer]
OnActiveSec=1min
OnUnitActiveSec=1min
AccuracySec=5s
UNIT

systemctl daemon-reload || end 'the worker cannot be started'
systemctl start workmanager-end.timer workmanager-renew.timer workmanager-worker.service || end 'the worker cannot be started'
