#!/bin/sh
# usage: scripts/teardown.sh [flags]      takes away what scripts/setup.sh has made, and proves it
set -eu
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=scripts/lib.sh
. "$here/lib.sh"

usage() {
	cat <<'USAGE'
usage: scripts/teardown.sh [flags]

Ends workers and nodes with their disks, and deletes all else that has the tag of the
deployment. JOBS AND RESULTS ARE GONE WITH THE NODES: fetch a backup first if they matter.

  --state FOLDER     of the deployment; default ~/.workmanager/prod
  --cluster ID       of a deployment whose state folder is lost; needs --region then
  --region REGION
  --dry-run          show what would go
  --yes              do not ask

Prints what is left, and "0 left" if nothing is. Safe to run on half a deployment, and again.
Exit codes: 0 nothing is left, 1 something is, 2 usage.
USAGE
}

main() {
	read_flags "$@"
	begin sed
	trap finish EXIT
	trap 'exit 130' INT
	trap 'exit 143' TERM HUP
	was=$(saved cluster)
	if [ -n "$was" ] && [ -n "$cluster" ] && [ "$was" != "$cluster" ]; then
		usage_error "--cluster $cluster: $state is the state of $was; give another --state"
	fi
	cluster=${cluster:-$was}
	if [ -z "$cluster" ]; then
		say "0 left: there is no deployment in $state. One whose state is lost goes with --cluster ID --region REGION."
		exit 0
	fi
	check_cluster
	find_region
	[ -z "$was" ] || [ -n "$dry_run" ] || log=$state/log

	step='looking at what is there'
	inventory >"$tmp/all" || failed 'what is there cannot be seen; nothing was done'
	if [ ! -s "$tmp/all" ]; then
		forget
		say "0 left of $cluster in $region."
		exit 0
	fi
	say "Deployment $cluster in $region:"
	sed 's/^/  /' "$tmp/all"
	[ -z "$dry_run" ] || exit 0
	confirm

	errors=0
	step='stopping the fleet'
	stop_fleet
	step='ending instances'
	end_instances
	step='deleting security groups'
	delete_groups
	step='deleting the key pair'
	delete_key_pair
	step='deleting the role'
	delete_role
	step='counting'
	count
}

read_flags() {
	state=${WORKMANAGER_STATE:-$HOME/.workmanager/prod}
	dry_run='' yes=''
	while [ $# -gt 0 ]; do
		flag=$1
		shift
		case $flag in
		--*=*)
			set -- "${flag#*=}" "$@"
			flag=${flag%%=*}
			;;
		esac
		case $flag in
		--dry-run) dry_run=yes && continue ;;
		--yes | -y) yes=yes && continue ;;
		-h | --help)
			usage
			exit 0
			;;
		--state | --cluster | --region) [ $# -gt 0 ] || usage_error "$flag needs a value" ;;
		*) usage_error "$flag is no flag of teardown.sh" ;;
		esac
		case $flag in
		--state) state=$1 ;;
		--cluster) cluster=$1 ;;
		--region) region=$1 ;;
		esac
		shift
	done
}

confirm() {
	[ -z "$yes" ] || return 0
	[ -t 0 ] || usage_error 'this is no terminal to ask at: give --yes, or look first with --dry-run'
	say 'Jobs and results that nobody has fetched are gone with the nodes.'
	printf 'Type %s to go on: ' "$cluster"
	read -r answer || answer=''
	[ "$answer" = "$cluster" ] || {
		say 'Nothing was done.'
		exit 1
	}
}

finish() {
	status=$?
	trap - EXIT
	rm -rf "$tmp"
	exit $status
}

# failed ends; what can be gone on with is trouble's.
failed() {
	trouble "$1"
	note "to go on: scripts/teardown.sh --cluster $cluster --region $region --state $state"
	exit 1
}

# trouble notes what did not work. The rest is done all the same; the count at the
# end is what matters.
trouble() {
	errors=$((${errors:-0} + 1))
	note "$step: $1"
	if [ -s "$tmp/err" ]; then
		sed "/^\$/d; s/^/$program:   /" "$tmp/err" >&2
		plain=$(explain)
		[ -z "$plain" ] || note "$plain"
	fi
	: >"$tmp/err"
}

# stop_fleet pauses the scheduler of each node. A node that does not say yes is
# ended before its workers are, so that nothing is launched after the count.
stop_fleet() {
	silent=''
	instances node >"$tmp/nodes" || failed 'the nodes cannot be seen'
	while read -r id _ name; do
		url=$(sed -n 's/^WORKMANAGER_NODE=//p' "$state/operator.env" 2>/dev/null | tr ',' '\n' | sed -n "$([ "$name" = b ] && echo 2 || echo 1)p")
		if [ -n "$url" ] && [ -x "$state/bin/workmanager" ] &&
			(
				# shellcheck source=/dev/null
				set -a && . "$state/operator.env"
				export WORKMANAGER_NODE="$url"
				limited "$state/bin/workmanager" fleet pause
			) >/dev/null 2>&1; then
			say "node $name has stopped launching"
		else
			silent="$silent $id"
		fi
	done <"$tmp/nodes"
	[ -n "$silent" ] || return 0
	say "nodes that cannot be asked to stop launching end first:$silent"
	# shellcheck disable=SC2086 # words
	terminate $silent
	# shellcheck disable=SC2086 # words
	until_gone $silent
}

# limited COMMAND... gives it ten seconds.
limited() {
	if command -v timeout >/dev/null 2>&1; then timeout 10 "$@" </dev/null; else "$@" </dev/null; fi
}

# terminate IDS ends instances. One that AWS does not know keeps the others from
# ending with it: then each is asked for by itself.
terminate() {
	[ $# -gt 0 ] || return 0
	if call ec2 terminate-instances --instance-ids "$@" >/dev/null; then return 0; fi
	case $(code):$# in
	InvalidInstanceID.*:1) ;; # it is gone, or will be listed again
	InvalidInstanceID.*) for i in "$@"; do terminate "$i"; done ;;
	*) trouble "not ended so far: $*" ;;
	esac
}

# until_gone IDS waits until these have ended, as far as is known.
until_gone() {
	looks=0
	while [ $# -gt 0 ]; do
		{ instances node && instances worker; } >"$tmp/living" || trouble 'the instances cannot be seen'
		left=''
		for i in "$@"; do grep -q "^$i	" "$tmp/living" && left="$left $i"; done
		[ -n "$left" ] || return 0
		looks=$((looks + 1))
		[ "$looks" -lt "$patience" ] || {
			trouble "still there:$left"
			return 0
		}
		sleep "$pause"
	done
}

# end_instances ends workers, then nodes, until two looks some time apart show
# none: a launch may have been under way.
end_instances() {
	rounds=0 clear=''
	while [ "$clear" != twice ]; do
		{ instances worker && instances node; } >"$tmp/living" || {
			trouble 'the instances cannot be seen'
			return 0
		}
		if [ -s "$tmp/living" ]; then
			clear=''
			rounds=$((rounds + 1))
			[ "$rounds" -le 10 ] || {
				trouble "instances do not end: $(cut -f 1 "$tmp/living" | tr '\n' ' ')"
				return 0
			}
			ids=$(awk '$2 != "shutting-down" { print $1 }' "$tmp/living")
			# shellcheck disable=SC2086 # words
			terminate $ids
			say "ending $(cut -f 1 "$tmp/living" | tr '\n' ' ')"
			# shellcheck disable=SC2046 # words
			until_gone $(cut -f 1 "$tmp/living")
			continue
		fi
		if [ -n "$clear" ]; then
			clear=twice
		else
			clear=once
			[ "$rounds$silent" = 0 ] || sleep "$settle"
		fi
	done
}

# delete_groups takes the rules away first: two groups that name each other keep
# each other.
delete_groups() {
	call ec2 describe-security-groups --filters "$(ours)" --query 'SecurityGroups[].[GroupId]' >"$tmp/groups" || {
		trouble 'the security groups cannot be seen'
		return 0
	}
	[ -s "$tmp/groups" ] || return 0
	rules_of "$(tr '\n' ',' <"$tmp/groups" | sed 's/,$//')" >"$tmp/rules" || trouble 'the rules of the security groups cannot be seen'
	groups=$(cat "$tmp/groups")
	for group in $groups; do
		for way in in out; do
			verb=ingress
			[ "$way" = in ] || verb=egress
			rules=$(awk -v g="$group" -v w="$way" '$2 == g && $3 == w { print $1 }' "$tmp/rules")
			# shellcheck disable=SC2086 # words
			[ -z "$rules" ] || call ec2 "revoke-security-group-$verb" --group-id "$group" --security-group-rule-ids $rules >/dev/null || trouble "the rules of $group stay"
		done
	done
	for group in $groups; do
		looks=0
		until call ec2 delete-security-group --group-id "$group" >/dev/null; do
			case $(code) in
			InvalidGroup.NotFound) break ;;
			DependencyViolation) # AWS takes a while to see that its instances are gone
				looks=$((looks + 1))
				if [ "$looks" -lt "$patience" ]; then
					sleep "$pause"
					continue
				fi
				;;
			esac
			trouble "$group stays"
			break
		done
	done
	say 'security groups deleted'
}

delete_key_pair() {
	call ec2 describe-key-pairs --filters "$(ours)" --query 'KeyPairs[].[KeyName]' >"$tmp/pairs" || {
		trouble 'the key pair cannot be seen'
		return 0
	}
	while read -r name; do
		call ec2 delete-key-pair --key-name "$name" >/dev/null || trouble "key pair $name stays"
	done <"$tmp/pairs"
}

# gone ARGS... calls AWS, and takes "there is no such thing" for done.
gone() {
	call "$@" >/dev/null || [ "$(code)" = NoSuchEntity ] || trouble "$1 $2 did not work"
}

delete_role() {
	[ -z "$(saved profile)" ] || return 0 # an administrator's
	name=wm-$cluster-node
	profile_of || trouble 'the instance profile cannot be seen'
	[ -z "$profile_role" ] || gone iam remove-role-from-instance-profile --instance-profile-name "$name" --role-name "$profile_role"
	[ -z "$profile" ] || gone iam delete-instance-profile --instance-profile-name "$name"
	gone iam delete-role-policy --role-name "$name" --policy-name workers
	gone iam delete-role --role-name "$name"
}

count() {
	inventory >"$tmp/all" || failed 'what is left cannot be seen'
	left=$(wc -l <"$tmp/all" | tr -d ' ')
	if [ "$left" = 0 ]; then
		forget
		say "0 left of $cluster in $region."
		return 0
	fi
	say "$left left of $cluster in $region:"
	sed 's/^/  /' "$tmp/all"
	note "run it again: scripts/teardown.sh --cluster $cluster --region $region --state $state"
	exit 1
}

# forget deletes keys and settings of what is no more; the log stays.
forget() {
	[ -z "$dry_run" ] && [ "$(saved cluster)" = "$cluster" ] || return 0
	rm -rf "${state:?}/keys" "$state/keys.new" "${state:?}/bin"
	rm -f "$state/ssh_key" "$state/ssh_key.pub" "$state/ssh_key.new" "$state/ssh_key.new.pub" "$state/known_hosts" \
		"$state/client.env" "$state/operator.env" "$state/policy.json" "$state/settings.new"
	rm -f "$state/settings" # last: until then this is run again
}

main "$@"
