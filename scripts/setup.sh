#!/bin/sh
# usage: scripts/setup.sh [flags]      puts a pair of nodes on AWS; run again, it goes on or repairs
#
# Two nodes in two zones, EC2 workers as the backlog needs them. Shows what it
# will make, what that costs and opens, asks, and then finds or makes one thing
# after the other, so that it can be stopped anywhere and run again.
# scripts/teardown.sh takes all of it away.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=scripts/lib.sh
. "$here/lib.sh"

usage() {
	cat <<'USAGE'
usage: scripts/setup.sh [flags]

  --dry-run               show the plan and its price, make nothing
  --yes                   do not ask
  --region REGION         default: that of the environment or the AWS profile
  --state FOLDER          keys, settings and log of this deployment; default ~/.workmanager/prod
  --cluster ID            go on with a deployment whose state folder is lost
  --allow-cidr CIDR       open the API to it; may be given more than once. Default: nobody
  --ssh-cidr A.B.C.D/32   this machine's public address, let in on port 22 while setup runs;
                          default: an --allow-cidr of one address, else the address that this
                          machine has itself, which behind a NAT is the wrong one
  --keep-ssh              leave port 22 open to it afterwards
  --node-type TYPE        default t4g.small
  --node-workers N        cores of each node that compute; default 0, the instances do
  --types TYPE,...        instance types of workers, in order; default c7a.large,c6a.large,c7i.large
  --max-workers N         default 8
  --spot                  Spot instances first
  --budget-per-day N      launch no more for that many dollars a day
  --volume-gib N          of a node, encrypted; default 16
  --instance-profile NAME of the nodes, made by an administrator; nothing is made in IAM
  --binaries FOLDER       with workmanager-linux-amd64 and -arm64, and workmanager for this
                          machine; default: built here with go
  --smoke-worker          also launch one worker, have it compute, and wait until it is gone

Settings are kept in the state folder: run again without them. Exit codes: 0 done, 1 failed,
2 usage.
USAGE
}

api=5000
gossip=7946
steps=10
default_types=c7a.large,c6a.large,c7i.large
ssh_user='admin' # of Debian's images
images=136693071363 # the account that Debian's images come from

main() {
	read_flags "$@"
	begin ssh scp ssh-keygen tar
	trap finish EXIT
	trap 'exit 130' INT
	trap 'exit 143' TERM HUP
	find_region
	settle_flags
	find_cluster
	preflight
	show_plan
	[ -z "$dry_run" ] || exit 0
	confirm

	started=$(date +%s)
	mkdir -p "$state"
	log=$state/log
	keep_flags
	number 1 image
	find_images
	number 2 'program'
	find_programs
	number 3 'key pair'
	find_key_pair
	number 4 'security groups'
	find_groups
	number 5 'role'
	find_role
	number 6 'nodes'
	find_nodes
	number 7 'keys'
	find_keys
	number 8 'delivery'
	deliver
	number 9 'proof'
	prove
	number 10 'port 22'
	close_ssh
	done_in "$(($(date +%s) - started))"
}

# --- flags ------------------------------------------------------------------

read_flags() {
	state=${WORKMANAGER_STATE:-$HOME/.workmanager/prod}
	dry_run='' yes='' allow='' ssh_cidr='' own='' keep_ssh='' node_type='' node_workers='' types='' max_workers='' spot=''
	budget='' volume='' given_profile='' binaries='' smoke_worker='' opened=''
	while [ $# -gt 0 ]; do
		flag=$1
		shift
		case $flag in
		--*=*) # --flag=value is --flag value
			set -- "${flag#*=}" "$@"
			flag=${flag%%=*}
			;;
		esac
		case $flag in
		--dry-run) dry_run=yes && continue ;;
		--yes | -y) yes=yes && continue ;;
		--keep-ssh) keep_ssh=yes && continue ;;
		--spot) spot=yes && continue ;;
		--smoke-worker) smoke_worker=yes && continue ;;
		-h | --help)
			usage
			exit 0
			;;
		--region | --state | --cluster | --allow-cidr | --ssh-cidr | --node-type | --node-workers | --types | --max-workers | --budget-per-day | --volume-gib | --instance-profile | --binaries) ;;
		*) usage_error "$flag is no flag of setup.sh" ;;
		esac
		[ $# -gt 0 ] || usage_error "$flag needs a value"
		case $flag in
		--region) region=$1 ;;
		--state) state=$1 ;;
		--cluster) cluster=$1 ;;
		--allow-cidr) allow="$allow $1" ;;
		--ssh-cidr) ssh_cidr=$1 ;;
		--node-type) node_type=$1 ;;
		--node-workers) node_workers=$1 ;;
		--types) types=$1 ;;
		--max-workers) max_workers=$1 ;;
		--budget-per-day) budget=$1 ;;
		--volume-gib) volume=$1 ;;
		--instance-profile) given_profile=$1 ;;
		--binaries) binaries=$1 ;;
		esac
		shift
	done
}

# settle_flags takes what was not given from the last run, or its default.
settle_flags() {
	[ -n "$allow" ] || allow=$(saved allow)
	[ -n "$ssh_cidr" ] || ssh_cidr=$(saved ssh_cidr)
	[ -n "$node_type" ] || node_type=$(saved node_type)
	[ -n "$node_workers" ] || node_workers=$(saved node_workers)
	[ -n "$max_workers" ] || max_workers=$(saved max_workers)
	[ -n "$spot" ] || spot=$(saved spot)
	[ -n "$budget" ] || budget=$(saved budget)
	[ -n "$volume" ] || volume=$(saved volume)
	[ -n "$given_profile" ] || given_profile=$(saved profile)
	asked_types=$types
	[ -n "$types" ] || types=$(saved types)
	node_type=${node_type:-t4g.small} node_workers=${node_workers:-0} max_workers=${max_workers:-8} volume=${volume:-16}
	types=$(printf '%s' "${types:-$default_types}" | tr ',' ' ')
	allow=${allow# }

	for c in $allow; do
		plain_cidr "$c" || usage_error "--allow-cidr $c: want a range such as 203.0.113.7/32"
		case $c in */32) [ -n "$ssh_cidr" ] || ssh_cidr=$c ;; esac
	done
	case $ssh_cidr in
	'')
		own=$(own_address)
		[ -n "$own" ] || usage_error "--ssh-cidr is missing: the public address of this machine as A.B.C.D/32. It is not looked up on the internet; 'curl https://checkip.amazonaws.com' would tell"
		;;
	0.0.0.0/32) usage_error "--ssh-cidr $ssh_cidr: want the one public address of this machine" ;;
	*/32) plain_cidr "$ssh_cidr" || usage_error "--ssh-cidr $ssh_cidr: want one address, such as 203.0.113.7/32" ;;
	*) usage_error "--ssh-cidr $ssh_cidr: want one address, such as 203.0.113.7/32; port 22 is opened to no range" ;;
	esac
	operator=${ssh_cidr:-$own/32}
	for n in "--node-workers=$node_workers" "--max-workers=$max_workers" "--volume-gib=$volume"; do
		case ${n#*=} in '' | *[!0-9]*) usage_error "${n%%=*} must be a whole number: ${n#*=} given" ;; esac
	done
	[ "$volume" -ge 8 ] || usage_error "--volume-gib must be at least 8, the size of the image: $volume given"
	case $budget in *[!0-9.]*) usage_error "--budget-per-day must be dollars: $budget given" ;; esac
	for t in $node_type $types; do
		case $t in
		*[!a-z0-9.-]* | .* | *.) usage_error "$t is no instance type such as c7a.large" ;;
		*.*) ;;
		*) usage_error "$t is no instance type such as c7a.large" ;;
		esac
	done
	node_arch=$(arch_of "$node_type")
	worker_arch=''
	for t in $types; do
		[ -z "$worker_arch" ] || [ "$worker_arch" = "$(arch_of "$t")" ] ||
			usage_error "--types: all workers start from one image, and $t is for $(arch_of "$t") while the others are for $worker_arch"
		worker_arch=$(arch_of "$t")
	done
}

# own_address is the one with which this machine goes out, by Linux and by macOS.
own_address() {
	ip -4 route get 192.0.2.1 2>/dev/null | sed -n 's/.* src \([0-9.]*\).*/\1/p' | head -n 1 | grep . ||
		ipconfig getifaddr "$(route -n get default 2>/dev/null | awk '$1 == "interface:" { print $2 }')" 2>/dev/null || true
}

plain_cidr() {
	printf '%s\n' "$1" | awk -F '[./]' '
		NF != 5 || $0 !~ /^[0-9.]+\/[0-9]+$/ { exit 1 }
		{ for (i = 1; i <= 4; i++) if ($i == "" || $i > 255) exit 1; if ($5 > 32) exit 1 }'
}

# arch_of TYPE: Graviton has a g behind the number of its generation.
arch_of() {
	case $1 in
	a1.* | *[0-9]g*.*) say arm64 ;;
	*) say amd64 ;;
	esac
}

keep_flags() {
	[ -f "$state/settings" ] || : >"$state/settings"
	[ "$(saved cluster)" = "$cluster" ] || save cluster "$cluster"
	save region "$region"
	save allow "$allow"
	save ssh_cidr "$ssh_cidr"
	save node_type "$node_type"
	save node_workers "$node_workers"
	save types "$(list_of "$types")"
	save subnets "$(list_of "$subnets")"
	save max_workers "$max_workers"
	save spot "$spot"
	save budget "$budget"
	save volume "$volume"
	save profile "$given_profile"
}

list_of() { printf '%s' "$1" | tr ' ' ','; }

# find_cluster is that of the state folder, that of --cluster, or a new one.
find_cluster() {
	was=$(saved cluster)
	if [ -n "$was" ] && [ -n "$cluster" ] && [ "$was" != "$cluster" ]; then
		usage_error "--cluster $cluster: $state is the state of $was; give another --state"
	fi
	[ -z "$was" ] || [ -n "$cluster" ] || cluster=$was
	if [ -z "$cluster" ]; then
		[ -n "$dry_run" ] || cluster=$(od -An -N3 -tx1 /dev/urandom | tr -d ' \n')
		new=yes
	else
		new=''
		check_cluster
	fi
}

# --- plan -------------------------------------------------------------------

preflight() {
	step='looking at the account'
	call sts get-caller-identity --query '[Account,Arn]' >"$tmp/who" || failed 'AWS does not say who we are'
	read -r account arn <"$tmp/who"
	partition=$(printf '%s' "$arn" | cut -d : -f 2)
	call ec2 describe-vpcs --filters Name=is-default,Values=true --query 'Vpcs[0].VpcId' >"$tmp/vpc" || failed 'the networks of the region cannot be seen'
	read -r vpc <"$tmp/vpc"
	[ "$vpc" != None ] || failed "region $region has no default VPC: 'aws ec2 create-default-vpc --region $region' makes one"
	call ec2 describe-subnets --filters "Name=vpc-id,Values=$vpc" Name=default-for-az,Values=true Name=state,Values=available \
		--query 'sort_by(Subnets,&AvailabilityZone)[].[SubnetId,AvailabilityZone]' >"$tmp/subnets" || failed 'the subnets of the default VPC cannot be seen'
	choose_zones
	call ec2 describe-security-groups --filters Name=tag-key,Values=workmanager:cluster Name=tag:workmanager:role,Values=node \
		--query "SecurityGroups[].Tags[?Key=='workmanager:cluster'][].Value" | tr '\t' '\n' >"$tmp/others" || failed 'the security groups of the region cannot be seen'
	[ -z "$new" ] || [ ! -s "$tmp/others" ] || [ -n "$(saved region)" ] ||
		note "there are deployments in $region already: $(tr '\n' ' ' <"$tmp/others")- this makes another one; --cluster ID goes on with one of them"
}

# choose_zones takes the first two zones that have the type of the nodes and all
# types of workers. Default types that are rare here are left out.
choose_zones() {
	call ec2 describe-instance-type-offerings --location-type availability-zone \
		--filters "Name=instance-type,Values=$(list_of "$node_type $types")" \
		--query 'InstanceTypeOfferings[].[InstanceType,Location]' | tr '\t' ' ' >"$tmp/offers" || failed 'the instance types of the region cannot be seen'
	while :; do
		zones='' subnets=''
		while read -r subnet zone; do
			for t in $node_type $types; do
				grep -qx "$t $zone" "$tmp/offers" || continue 2
			done
			zones="$zones $zone" subnets="$subnets $subnet=$zone"
		done <"$tmp/subnets"
		# shellcheck disable=SC2086 # words
		set -- $subnets
		if [ $# -ge 2 ]; then
			subnets="$1 $2"
			was=$(saved subnets | tr ',' ' ') # a slot keeps its zone
			for s in $was; do
				case " $zones " in *" ${s#*=} "*) ;; *) was='' ;; esac
			done
			subnets=${was:-$subnets}
			zones="$(printf '%s' "${subnets% *}" | cut -d = -f 2) ${subnets##*=}"
			return
		fi
		# shellcheck disable=SC2086 # words
		set -- $types
		if [ -n "$asked_types" ] || [ $# -le 1 ]; then
			: >"$tmp/err"
			failed "no two zones of $region with a default subnet have all of $node_type $types; choose others with --node-type and --types. They have: $(sort "$tmp/offers" | tr '\n' ',' | sed 's/,$//; s/,/, /g')"
		fi
		rare='' # the one that the fewest zones have
		for t in $types; do
			n=$(grep -c "^$t " "$tmp/offers" || true)
			[ -n "$rare" ] && [ "$n" -gt "$least" ] || rare=$t least=$n
		done
		types=$(for t in $types; do [ "$t" = "$rare" ] || printf '%s ' "$t"; done)
		types=${types% }
	done
}

# price TYPE is that of the list, "" if it is not there.
price() { awk -v n="$1" '$1 == n { print $2 }' "$parts/prices"; }

# money says what is paid.
money() {
	awk -v node="$(price "$node_type")" -v address="$(price address)" -v gib="$(price gib)" -v volume="$volume" \
		-v worker="$(for t in $types; do price "$t"; done | sort -n | tail -n 1)" -v max="$max_workers" -v known="$(for t in $types; do price "$t"; done | wc -l)" -v types="$(printf '%s' "$types" | wc -w)" 'BEGIN {
		if (node == "") { print "n/a: the price of this --node-type is not known here"; exit }
		now = 2 * (node + address + volume * gib)
		printf "$%.3f/h now", now
		if (known == types) printf ", at most $%.2f/h with %d workers on demand", now + max * (worker + 8 * gib), max
		print " (list price of us-east-1, with volumes and addresses; traffic not counted)"
	}'
}

show_plan() {
	market='on demand'
	[ -z "$spot" ] || market='Spot, then on demand'
	say "Checking      $arn, $region"
	say "Deployment    ${cluster:-(a new ID)}${new:+, new}; state in $state"
	if [ -n "$given_profile" ]; then say "Will make     1 key pair, 2 security groups; instance profile $given_profile is there"; else
		say "Will make     1 key pair, 2 security groups, 1 role with its instance profile"
	fi
	say "              2 nodes $node_type in ${zones% *} and ${zones#* }, encrypted volumes of $volume GiB"
	say "              workers as needed: $market, at most $max_workers, $(printf '%s' "$types" | sed 's/ /, /g')"
	say "Cost          $(money)"
	if [ -n "$allow" ]; then say "Opens         port $api (API, dashboard) to $(printf '%s' "$allow" | sed 's/ /, /g')"; else
		say "Opens         port $api (API, dashboard) to nobody; --allow-cidr A.B.C.D/32 opens it"
	fi
	for c in $allow; do [ "$c" != 0.0.0.0/0 ] || say "              THAT IS EVERYBODY: tokens alone guard it"; done
	say "              ports $api and $gossip between the nodes, $api from workers to nodes; nothing to workers"
	if [ -n "$keep_ssh" ]; then say "              port 22 to $operator, and it stays open"; else
		say "              port 22 to $operator while this runs"
	fi
	[ -n "$ssh_cidr" ] || say "              (this machine's own address; behind a NAT say the public one with --ssh-cidr)"
}

confirm() {
	[ -z "$yes" ] || return 0
	[ -t 0 ] || usage_error 'this is no terminal to ask at: give --yes, or look first with --dry-run'
	printf 'Continue? [y/N] '
	read -r answer || answer=''
	case $answer in y | Y | yes) ;; *)
		say 'Nothing was made.'
		exit 1
		;;
	esac
}

# --- steps ------------------------------------------------------------------

number() {
	step="step $1/$steps, $2"
	printf '[%s/%s] %s\n' "$1" "$steps" "$2"
}
found() { say "        $*"; }

# failed says what failed, what there is, and the two ways on.
failed() {
	trap - EXIT
	{
		note "$step: $1"
		if [ -s "$tmp/err" ]; then
			sed "/^\$/d; s/^/$program:   /" "$tmp/err"
			plain=$(explain)
			[ -z "$plain" ] || note "$plain"
		fi
		if [ -n "$cluster" ] && [ -f "$state/settings" ]; then
			close_quietly
			note 'what there is now:'
			inventory | sed "s/^/$program:   /" || true
			note "to go on:         scripts/setup.sh --state $state"
			note "to take it away:  scripts/teardown.sh --state $state"
		fi
	} >&2
	rm -rf "$tmp"
	exit 1
}

# finish runs at every end that is not failed's.
finish() {
	status=$?
	trap - EXIT
	close_quietly
	rm -rf "$tmp"
	exit $status
}

close_quietly() {
	[ -n "$opened" ] && [ -z "$keep_ssh" ] || return 0
	opened=''
	set_rules '' >/dev/null 2>&1 || note "port 22 of the nodes may still be open to $operator: run this again, or scripts/teardown.sh"
}

# find_images resolves each image once: the nodes must not resolve differently,
# and a new one must not arrive overnight.
find_images() {
	for arch in $node_arch $worker_arch; do
		[ -z "$(saved "image_$arch")" ] || continue
		their=x86_64
		[ "$arch" = amd64 ] || their=arm64
		call ec2 describe-images --owners "$images" --filters "Name=name,Values=debian-12-$arch-2*" "Name=architecture,Values=$their" \
			Name=root-device-type,Values=ebs Name=virtualization-type,Values=hvm Name=state,Values=available \
			--query 'sort_by(Images,&CreationDate)[-1].[ImageId,RootDeviceName]' >"$tmp/image" || failed "the images of Debian cannot be seen"
		read -r image root <"$tmp/image"
		[ "$image" != None ] || failed "there is no Debian 12 for $arch in $region"
		save "image_$arch" "$image $root"
	done
	read -r node_image node_root <<-IMAGE
		$(saved "image_$node_arch")
	IMAGE
	read -r worker_image _ <<-IMAGE
		$(saved "image_$worker_arch")
	IMAGE
	found "Debian 12: nodes $node_image ($node_arch), workers $worker_image ($worker_arch)"
	# Allowed at all? The words of the calls to come, without their doing.
	dry ec2:RunInstances ec2 run-instances --image-id "$node_image" --instance-type "$node_type" --count 1
	dry ec2:CreateSecurityGroup ec2 create-security-group --group-name "wm-$cluster-dry-run" --description 'dry run'
}

# dry ACTION ARGS... asks AWS whether we may.
dry() {
	action=$1
	shift
	if call "$@" --dry-run >/dev/null; then return; fi
	case $(code) in
	DryRunOperation) ;;
	*) failed "$action is needed, and refused" ;;
	esac
}

# find_programs puts the programs of the nodes, the workers and this machine in
# the state folder.
find_programs() {
	mkdir -p "$state/bin"
	program_here=$state/bin/workmanager
	for arch in $node_arch $worker_arch; do
		name=workmanager-linux-$arch
		if [ -n "$binaries" ]; then
			take "$binaries/$name" "$name"
		else
			build "$name" "$arch"
		fi
	done
	if [ -n "$binaries" ]; then take "$binaries/workmanager" workmanager; else build workmanager ''; fi
	found "$("$program_here" --version 2>/dev/null || say 'the program does not run on this machine') for $node_arch$([ "$node_arch" = "$worker_arch" ] || printf ' and %s' "$worker_arch")"
}

take() {
	[ -f "$1" ] || failed "there is no $1"
	cmp -s "$1" "$state/bin/$2" && return
	cp "$1" "$state/bin/$2.new" || failed "$1 cannot be copied"
	chmod 755 "$state/bin/$2.new"
	mv "$state/bin/$2.new" "$state/bin/$2"
}

build() {
	command -v go >/dev/null 2>&1 || failed 'go is not installed: install Go, or give --binaries a folder with the programs'
	(
		cd "$here/.."
		[ -z "$2" ] || export GOOS=linux GOARCH="$2"
		CGO_ENABLED=0 go build -trimpath -o "$state/bin/$1.new" .
	) || failed "$1 does not build"
	mv "$state/bin/$1.new" "$state/bin/$1"
}

find_key_pair() {
	[ -f "$state/ssh_key" ] || {
		ssh-keygen -q -t ed25519 -N '' -C "workmanager $cluster" -f "$state/ssh_key.new" </dev/null || failed 'ssh-keygen made no key'
		mv "$state/ssh_key.new.pub" "$state/ssh_key.pub"
		mv "$state/ssh_key.new" "$state/ssh_key"
	}
	mine=$(sha256sum <"$state/ssh_key.pub" | cut -c 1-64)
	call ec2 describe-key-pairs --filters "$(ours)" --query "KeyPairs[].[KeyName,Tags[?Key=='workmanager:sum']|[0].Value]" >"$tmp/pair" || failed 'the key pairs cannot be seen'
	read -r name sum <"$tmp/pair" || name=''
	if [ -n "$name" ] && [ "$sum" = "$mine" ]; then
		found "$name is there"
		return
	fi
	if [ -n "$name" ]; then # its other half is lost, with a state folder
		call ec2 delete-key-pair --key-name "$name" >/dev/null || failed "the key pair $name cannot be deleted"
		note "the key pair was another one: nodes that started with it let nobody in on port 22"
	fi
	call ec2 import-key-pair --key-name "wm-$cluster" --public-key-material "fileb://$state/ssh_key.pub" \
		--tag-specifications "ResourceType=key-pair,Tags=$(tags node workmanager:sum "$mine")" >/dev/null || failed 'the key pair cannot be made'
	found "wm-$cluster made; its private half stays in $state"
}

find_groups() {
	call ec2 describe-security-groups --filters "$(ours)" Name=vpc-id,Values="$vpc" --query 'SecurityGroups[].[GroupId,GroupName]' >"$tmp/groups" || failed 'the security groups cannot be seen'
	for role in node worker; do
		id=$(awk -v n="wm-$cluster-$role" '$2 == n { print $1 }' "$tmp/groups")
		if [ -z "$id" ]; then
			id=$(call ec2 create-security-group --group-name "wm-$cluster-$role" --description "workmanager $cluster, ${role}s" --vpc-id "$vpc" \
				--tag-specifications "ResourceType=security-group,Tags=$(tags "$role")" --query GroupId) || failed "the security group of ${role}s cannot be made"
			found "$role $id made"
		else
			found "$role $id is there"
		fi
		case $role in node) node_group=$id ;; worker) worker_group=$id ;; esac
	done
	set_rules yes || failed 'the rules of the security groups cannot be set'
	opened=yes
}

# set_rules SSH makes the rules those of the file: what is missing is added, what
# is not there is taken away. Port 22 is open only with SSH.
set_rules() {
	while read -r group way protocol port with _; do
		case $group in '' | '#'*) continue ;; esac
		case $with in
		clients) with=$allow ;;
		operator) with=${1:+$operator} ;;
		node) with=$node_group ;;
		worker) with=$worker_group ;;
		esac
		case $group in node) group=$node_group ;; worker) group=$worker_group ;; esac
		for w in $with; do say "$group $way $protocol $port $w"; done
	done <"$parts/rules" | sort -u >"$tmp/want"
	rules_of "$node_group,$worker_group" >"$tmp/rules" || return 1
	cut -d ' ' -f 2- "$tmp/rules" | sort -u >"$tmp/have"

	# What is too much first: port 22 of another address, the way out to everywhere.
	for group in "$node_group" "$worker_group"; do
		for way in in out; do
			verb=ingress
			[ "$way" = in ] || verb=egress
			gone=$(while read -r id rule; do
				case $rule in "$group $way "*) ;; *) continue ;; esac
				grep -qxF "$rule" "$tmp/want" || printf '%s ' "$id"
			done <"$tmp/rules")
			# shellcheck disable=SC2086 # words
			[ -z "$gone" ] || call ec2 "revoke-security-group-$verb" --group-id "$group" --security-group-rule-ids $gone >/dev/null || return 1
			add=$(comm -23 "$tmp/want" "$tmp/have" | awk -v g="$group" -v w="$way" '$1 == g && $2 == w {
				with = $5 ~ /^sg-/ ? "\"UserIdGroupPairs\":[{\"GroupId\":\"" $5 "\"}]" : "\"IpRanges\":[{\"CidrIp\":\"" $5 "\"}]"
				printf "%s{\"IpProtocol\":\"%s\",\"FromPort\":%d,\"ToPort\":%d,%s}", n++ ? "," : "", $3, $4, $4, with
			}')
			[ -z "$add" ] || call ec2 "authorize-security-group-$verb" --group-id "$group" --ip-permissions "[$add]" >/dev/null || return 1
		done
	done
}

# policy prints what the nodes may do.
policy() {
	places=$(
		printf '"arn:%s:ec2:%s::image/%s"' "$partition" "$region" "$worker_image"
		for s in $subnets; do printf ', "arn:%s:ec2:%s:%s:subnet/%s"' "$partition" "$region" "$account" "${s%=*}"; done
	)
	[ -z "$spot" ] || places="$places, \"arn:$partition:ec2:$region:$account:spot-instances-request/*\""
	sed "s|@PARTITION@|$partition|g; s|@REGION@|$region|g; s|@ACCOUNT@|$account|g; s|@CLUSTER@|$cluster|g
		s|@WORKERGROUP@|$worker_group|g; s|@PLACES@|$places|g; s|@TYPES@|$(printf '"%s"' "$types" | sed 's/ /", "/g')|g" "$parts/policy.json"
}

find_role() {
	if [ -n "$given_profile" ]; then
		profile=$given_profile
		found "instance profile $profile, as given"
		return
	fi
	policy >"$state/policy.json"
	name=wm-$cluster-node
	iam_failed() {
		case $(code) in AccessDenied | AccessDeniedException | UnauthorizedOperation)
			note "an administrator can make the instance profile, with $state/policy.json and $parts/trust.json; then give --instance-profile NAME" ;;
		esac
		failed "$1"
	}
	profile_of || iam_failed 'the instance profile cannot be seen'
	if [ -z "$profile_role" ]; then
		call iam create-role --role-name "$name" --assume-role-policy-document "file://$parts/trust.json" \
			--description "workmanager $cluster: its nodes launch and end its workers" \
			--tags "Key=workmanager:cluster,Value=$cluster" >/dev/null || [ "$(code)" = EntityAlreadyExists ] || iam_failed 'the role cannot be made'
	fi
	call iam put-role-policy --role-name "$name" --policy-name workers --policy-document "file://$state/policy.json" >/dev/null || iam_failed 'the role cannot be given its policy'
	if [ -z "$profile" ]; then
		call iam create-instance-profile --instance-profile-name "$name" --tags "Key=workmanager:cluster,Value=$cluster" >/dev/null ||
			[ "$(code)" = EntityAlreadyExists ] || iam_failed 'the instance profile cannot be made'
	fi
	if [ -z "$profile_role" ]; then
		call iam add-role-to-instance-profile --instance-profile-name "$name" --role-name "$name" >/dev/null ||
			[ "$(code)" = LimitExceeded ] || iam_failed 'the role cannot be put into the instance profile'
	fi
	profile=$name
	was=made
	[ -z "$profile_role" ] || was='is there'
	found "$profile $was: launches and ends workers of this deployment, nothing else"
}

# look_at_nodes notes the nodes: name, ID, state, private and public address,
# subnet, number of the deployment. One that ends is there for its number only.
look_at_nodes() {
	call ec2 describe-instances --filters "$(ours)" Name=tag:workmanager:role,Values=node \
		--query "Reservations[].Instances[].[Tags[?Key=='workmanager:node']|[0].Value,InstanceId,State.Name,PrivateIpAddress,PublicIpAddress,SubnetId,Tags[?Key=='workmanager:deployment']|[0].Value]" >"$tmp/all" || return 1
	awk '$3 != "terminated" && $3 != "shutting-down"' "$tmp/all" >"$tmp/nodes"
}

# of NODE FIELD is one of what look_at_nodes has noted.
of() { awk -v n="$1" -v f="$2" '$1 == n { print $f; exit }' "$tmp/nodes"; }

find_nodes() {
	look_at_nodes || failed 'the nodes cannot be seen'
	n=0
	for node in a b; do
		n=$((n + 1))
		subnet=$(printf '%s' "$subnets" | cut -d ' ' -f "$n")
		case $(of "$node" 3) in
		'') launch "$node" "${subnet%=*}" ;;
		stopped)
			call ec2 start-instances --instance-ids "$(of "$node" 2)" >/dev/null || failed "node $node cannot be started"
			found "node $node $(of "$node" 2) was stopped, and starts"
			;;
		*) found "node $node $(of "$node" 2) is there" ;;
		esac
	done
	looks=0
	while :; do
		look_at_nodes || failed 'the nodes cannot be seen'
		[ "$(awk '$1 == "a" || $1 == "b"' "$tmp/nodes" | wc -l)" -le 2 ] || failed "there are two instances of one node: $(cut -f 1,2 "$tmp/nodes" | tr '\t\n' ' ,'); terminate the one that is not wanted"
		ready=yes
		for node in a b; do
			[ "$(of "$node" 3)" = running ] && [ "$(of "$node" 4)" != None ] && [ "$(of "$node" 5)" != None ] || ready=''
		done
		[ -z "$ready" ] || break
		looks=$((looks + 1))
		: >"$tmp/err"
		[ "$looks" -lt "$patience" ] || failed "the nodes do not run: $(tr '\t\n' ' ,' <"$tmp/nodes")"
		sleep "$pause"
	done
	for node in a b; do found "node $node $(of "$node" 2) runs, $(of "$node" 4), $(of "$node" 5)"; done
}

# launch NODE SUBNET. The token makes one instance of any number of tries. It has
# a number that rises when the former instance of the node is gone, since AWS
# gives none for the token of one that has ended.
launch() {
	number=$(awk -v n="$1" '$1 == n && $7 + 0 > max { max = $7 + 0 } END { print max + 1 }' "$tmp/all")
	tries=0
	while :; do
		id=$(call ec2 run-instances --client-token "wm-$cluster-node-$1-$number" --image-id "$node_image" --instance-type "$node_type" --count 1 \
			--subnet-id "$2" --security-group-ids "$node_group" --associate-public-ip-address --key-name "wm-$cluster" \
			--iam-instance-profile "Name=$profile" --instance-initiated-shutdown-behavior stop \
			--metadata-options HttpEndpoint=enabled,HttpTokens=required,HttpPutResponseHopLimit=1 \
			--block-device-mappings "DeviceName=$node_root,Ebs={Encrypted=true,VolumeType=gp3,VolumeSize=$volume,DeleteOnTermination=true}" \
			--tag-specifications "ResourceType=instance,Tags=$(tags node workmanager:node "$1" workmanager:deployment "$number")" \
			"ResourceType=volume,Tags=$(tags node workmanager:node "$1")" \
			--query 'Instances[0].[InstanceId,State.Name]') && case $id in *terminated | *shutting-down) number=$((number + 1)) && continue ;; *) break ;; esac
		tries=$((tries + 1))
		case $(code):$(cat "$tmp/err") in
		IdempotentInstanceTerminated:*) number=$((number + 1)) ;;
		InvalidParameterValue:*nstance?[pP]rofile* | InvalidParameterValue:*iamInstanceProfile* | NoSuchEntity:*) # a new one takes a while
			[ "$tries" -lt 24 ] || failed "node $1 cannot be launched"
			sleep "$pause"
			;;
		*) failed "node $1 cannot be launched" ;;
		esac
		[ "$tries" -lt 50 ] || failed "node $1 cannot be launched"
	done
	found "node $1 ${id%%[!a-z0-9-]*} launched"
}

# find_keys makes the keys of the pair when the addresses of the nodes are known,
# and new certificates when these have changed.
find_keys() {
	hosts=$(for node in a b; do say "$node=$(of "$node" 4),$(of "$node" 5)"; done)
	# shellcheck disable=SC2086 # words
	set -- $hosts
	if [ ! -d "$state/keys" ]; then
		rm -rf "$state/keys.new"
		"$program_here" init --out "$state/keys.new" --node "$1" --node "$2" -o json >"$tmp/made" 2>"$tmp/err" || failed 'the keys cannot be made'
		: >"$tmp/err"
		for role in client operator worker; do
			sed -n "s/^.*\"$role\": *\"\\([^\"]*\\)\".*/\\1/p" "$tmp/made" >"$state/keys.new/$role.token"
			[ -s "$state/keys.new/$role.token" ] || failed "workmanager init made no token of a $role"
		done
		sed -n 's/^.*"fingerprint": *"\([^"]*\)".*/\1/p' "$tmp/made" >"$state/keys.new/fingerprint"
		say "$hosts" >"$state/keys.new/hosts"
		rm -f "$state/keys.new/client.env" # it names this folder
		mv "$state/keys.new" "$state/keys"
		found "made; the authority is $(cat "$state/keys/fingerprint")"
	elif [ "$hosts" != "$(cat "$state/keys/hosts")" ]; then
		"$program_here" init --renew --out "$state/keys" --node "$1" --node "$2" >/dev/null 2>"$tmp/err" || failed 'the certificates cannot be renewed'
		: >"$tmp/err"
		say "$hosts" >"$state/keys/hosts"
		found 'certificates for the new addresses'
	else
		found "are there; the authority is $(cat "$state/keys/fingerprint")"
	fi
	for role in client operator; do
		printf "# set -a; . '%s/%s.env'; set +a\nWORKMANAGER_NODE=https://%s:%s,https://%s:%s\nWORKMANAGER_CA='%s/keys/ca.crt'\nWORKMANAGER_TOKEN=%s\n" \
			"$state" "$role" "$(of a 5)" "$api" "$(of b 5)" "$api" "$state" "$(cat "$state/keys/$role.token")" >"$state/$role.env"
	done
}

# prices prints those that are known of the types of workers, as the node takes them.
prices() {
	known=''
	for t in $types; do
		[ -z "$(price "$t")" ] || known="$known $t=$(price "$t")"
	done
	list_of "${known# }"
}

# config NODE PEER prints the settings of a node: but for its own addresses the
# same on both, since what they launch must be the same.
config() {
	sed '/=$/d' <<-CONFIG
		WORKMANAGER_NAME=$1
		WORKMANAGER_LISTEN=$(of "$1" 4):$api
		WORKMANAGER_GOSSIP=$(of "$1" 4):$gossip
		WORKMANAGER_JOIN=$(of "$2" 4):$gossip
		WORKMANAGER_ADVERTISE=$(of "$1" 4):$api
		WORKMANAGER_CLUSTER=$cluster
		WORKMANAGER_DATA_DIR=/var/lib/workmanager
		WORKMANAGER_KEYS=/etc/workmanager/keys
		WORKMANAGER_BINARIES=/opt/workmanager/binaries
		WORKMANAGER_WORKERS=$node_workers
		WORKMANAGER_LOG_FORMAT=json
		WORKMANAGER_FLEET=ec2
		WORKMANAGER_AMI=$worker_image
		WORKMANAGER_SUBNETS=$(list_of "$subnets")
		WORKMANAGER_TYPES=$(list_of "$types")
		WORKMANAGER_WORKER_SG=$worker_group
		WORKMANAGER_WORKER_NODE=https://$(of a 4):$api,https://$(of b 4):$api
		WORKMANAGER_MAX_WORKERS=$max_workers
		WORKMANAGER_SPOT=${spot:+true}
		WORKMANAGER_BUDGET_PER_DAY=$budget
		WORKMANAGER_PRICES=$(prices)
		AWS_REGION=$region
	CONFIG
}

# remote NODE COMMAND runs it on a node. A host is known by its instance, not by
# its address, which may have been another's.
remote() {
	to=$1
	shift
	# shellcheck disable=SC2029 # on this side, as meant
	ssh -i "$state/ssh_key" -o BatchMode=yes -o IdentitiesOnly=yes -o ConnectTimeout=10 -o ServerAliveInterval=5 \
		-o StrictHostKeyChecking=accept-new -o "UserKnownHostsFile=$state/known_hosts" -o "HostKeyAlias=$(of "$to" 2)" \
		"$ssh_user@$(of "$to" 5)" "$@"
}

# ask NODE ROLE COMMAND... runs a command of the program on a node, which shows
# the token of that role. Standard input is the command's.
ask() {
	on=$1
	token=$state/keys/$2.token
	shift 2
	cat "$token" - | remote "$on" "IFS= read -r WORKMANAGER_TOKEN && export WORKMANAGER_TOKEN && sudo --preserve-env=WORKMANAGER_TOKEN /usr/local/bin/workmanager $* --node https://$(of "$on" 4):$api --ca /etc/workmanager/keys/ca.crt" 2>"$tmp/err"
}

deliver() {
	for node in a b; do pack "$node"; done
	for node in a b; do
		looks=0
		until remote "$node" 'sudo cat /etc/workmanager/manifest 2>/dev/null || true' </dev/null >"$tmp/there.$node" 2>"$tmp/err"; do
			looks=$((looks + 1))
			[ "$looks" -lt "$patience" ] || failed "node $node lets nobody in on port 22; is $operator the address that this machine is seen with? If not: --ssh-cidr"
			sleep "$pause"
		done
		: >"$tmp/err"
	done
	# Both launch with the same settings or not at all.
	paused=''
	for node in a b; do
		if [ -s "$tmp/there.$node" ] && ! restarts "$node"; then continue; fi
		[ -s "$tmp/there.$node" ] || continue
		ask a operator fleet pause </dev/null >/dev/null && paused=yes
		break
	done
	# The second node of a pair that is in step stops when the first is back; one
	# that is not is put right in any order.
	in_step=''
	if [ -s "$tmp/there.a" ] && [ -s "$tmp/there.b" ] && restarts a && restarts b && in_session b; then in_step=yes; fi
	: >"$tmp/err"
	install_on a
	[ -z "$in_step" ] || wait_for_session a
	install_on b
	for node in a b; do wait_for_session "$node"; done
	if [ -n "$paused" ]; then
		sleep "$settle" # a launch under way shows itself
		ask a operator fleet resume </dev/null >/dev/null || failed 'the fleet was paused and does not go on: workmanager fleet resume'
	fi
}

# restarts NODE reports whether what is new there makes the node start anew.
restarts() { grep -vxFf "$tmp/there.$1" "$tmp/manifest.$1" | grep -Eq ' (workmanager.*|node\.env)$'; }

# pack NODE lists what a node has.
pack() {
	dir=$tmp/pack.$1
	rm -rf "$dir"
	mkdir "$dir"
	peer=b
	[ "$1" = a ] || peer=a
	config "$1" "$peer" >"$dir/node.env"
	cp "$state/bin/workmanager-linux-$node_arch" "$dir/workmanager"
	[ "$node_arch" = "$worker_arch" ] || cp "$state/bin/workmanager-linux-$worker_arch" "$dir/"
	cp "$here/workmanager.service" "$parts/workmanager-backup.service" "$parts/workmanager-backup.timer" "$state/keys/$1"/* "$dir/"
	(cd "$dir" && sha256sum -- * | sed 's/  / /') >"$tmp/manifest.$1"
}

install_on() {
	dir=$tmp/pack.$1
	to_send=$(grep -vxFf "$tmp/there.$1" "$tmp/manifest.$1" | cut -d ' ' -f 2) || true
	if [ -z "$to_send" ] && remote "$1" 'systemctl is-active --quiet workmanager.service' </dev/null 2>/dev/null; then
		found "node $1: no change, not restarted"
		return
	fi
	(
		cd "$dir"
		for name in *; do printf '%s\n' "$to_send" | grep -qxF "$name" || rm "$name"; done
	)
	cp "$tmp/manifest.$1" "$dir/manifest"
	cp "$parts/install.sh" "$dir/install.sh"
	remote "$1" 'umask 077 && rm -rf wm-delivery && mkdir wm-delivery' </dev/null 2>"$tmp/err" || failed "node $1 takes no delivery"
	scp -q -i "$state/ssh_key" -o BatchMode=yes -o IdentitiesOnly=yes -o ConnectTimeout=10 \
		-o StrictHostKeyChecking=accept-new -o "UserKnownHostsFile=$state/known_hosts" -o "HostKeyAlias=$(of "$1" 2)" \
		"$dir"/* "$ssh_user@$(of "$1" 5):wm-delivery/" 2>"$tmp/err" || failed "the delivery to node $1 did not come over"
	remote "$1" 'sudo sh wm-delivery/install.sh wm-delivery' </dev/null >"$tmp/said" 2>"$tmp/err" || failed "node $1 cannot be installed"
	: >"$tmp/err"
	found "node $1: $(cat "$tmp/said"), $(printf '%s\n' "$to_send" | wc -w) files sent"
}

# in_session NODE reports whether a node serves and is in step with its peer.
in_session() { ask "$1" client status -o json </dev/null >"$tmp/status" && grep -q '"session": *"sync"' "$tmp/status"; }

# wait_for_session waits until a node serves and is in step with its peer.
wait_for_session() {
	looks=0
	until in_session "$1"; do
		looks=$((looks + 1))
		[ "$looks" -lt "$patience" ] || failed "node $1 is not in step with its peer: 'journalctl -u workmanager' there tells more"
		sleep "$pause"
	done
	found "node $1 is in step with its peer"
}

# prove enqueues at one node, waits at the other, and computes again here.
prove() {
	iterations=1
	[ "$node_workers" = 0 ] || iterations=100000
	[ -z "$smoke_worker" ] || iterations=1000000
	head -c 4096 /dev/urandom >"$tmp/proof"
	id=$(ask a client enqueue - -n "$iterations" -o id <"$tmp/proof") || failed 'node a takes no job'
	ask b client job wait "$id" --timeout 15m --no-progress -o json </dev/null >"$tmp/job" || failed "node b does not have the result of $id"
	value=$(sed -n 's/^.*"value": *"\([0-9a-f]*\)".*/\1/p' "$tmp/job")
	"$program_here" verify "$tmp/proof" -n "$iterations" --value "$value" >/dev/null 2>"$tmp/err" || failed "the value of $id is not right"
	: >"$tmp/err"
	found "job $id: enqueued on a, read on b, value right ($iterations iterations computed again here)"
	[ -n "$smoke_worker" ] || return 0
	looks=0
	while [ -n "$(instances worker)" ]; do
		looks=$((looks + 1))
		[ "$looks" -lt $((patience * 4)) ] || failed 'the worker does not end: workmanager fleet explain'
		sleep "$pause"
	done
	found 'its worker is gone again'
}

close_ssh() {
	if [ -n "$keep_ssh" ]; then
		found "stays open to $operator"
		return
	fi
	set_rules '' || failed 'port 22 cannot be closed'
	opened=''
	found closed
}

done_in() {
	say "Ready in $1 s"
	say "  Dashboard  https://$(of a 5):$api/  https://$(of b 5):$api/   authority $(cat "$state/keys/fingerprint")"
	[ -n "$allow" ] || say "             (open to nobody so far: scripts/setup.sh --state $state --allow-cidr A.B.C.D/32)"
	say "  Token      in $state/client.env (0600); for the fleet: $state/operator.env"
	say "  Try        set -a; . $state/client.env; set +a; $program_here enqueue README.md -n 1000000 --wait"
	say "  Backups    daily on each node in /var/backups/workmanager, seven kept"
	say "  Running    $(money)"
	say "  Stop paying:  scripts/teardown.sh --state $state"
}

main "$@"
