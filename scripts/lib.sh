# shellcheck shell=sh disable=SC2034,SC2154
# What setup.sh and teardown.sh have in common. Both source it.
#
# Truth is the tag workmanager:cluster of what is there; the state folder holds
# keys, the settings of the last run and a log of every call to AWS.

program=${0##*/}
parts=$here/deploy
pause=${WORKMANAGER_PAUSE:-5}       # seconds between two looks; tests have less
settle=${WORKMANAGER_SETTLE:-60}    # seconds after which AWS has shown all that was begun
patience=${WORKMANAGER_PATIENCE:-60} # looks before a wait is given up
log=/dev/null
region=''
cluster=''
tmp=''
step='start'
export AWS_PAGER='' AWS_EC2_METADATA_DISABLED="${AWS_EC2_METADATA_DISABLED:-true}"

say() { printf '%s\n' "$*"; }
note() { printf '%s: %s\n' "$program" "$*" >&2; }
usage_error() {
	note "$1"
	note "hint: $program --help"
	exit 2
}

# begin makes the folder for what is forgotten at the end.
begin() {
	umask 077
	for tool in aws awk sed "$@"; do
		command -v "$tool" >/dev/null 2>&1 || {
			note "$tool is not installed"
			exit 1
		}
	done
	tmp=$(mktemp -d)
	: >"$tmp/err"
}

# call ARGS...: one call of AWS, noted in the log. What it answers is on stdout.
call() {
	printf '%s aws %s\n' "$(date -u +%Y-%m-%dT%H:%M:%SZ)" "$*" >>"$log"
	aws --region "$region" --output text "$@" 2>"$tmp/err" || {
		printf '  %s\n' "$(cat "$tmp/err")" >>"$log"
		return 1
	}
}

# code is that of the last call, if it failed and AWS gave one.
code() { sed -n 's/.*An error occurred (\([A-Za-z0-9.]*\)).*/\1/p' "$tmp/err" | head -n 1; }

# explain says in plain words what the last call failed of.
explain() {
	case $(code) in
	UnauthorizedOperation | AccessDenied | AccessDeniedException)
		say "These credentials may not do that: ask whoever runs the account to allow the action that AWS names." ;;
	AuthFailure | InvalidClientTokenId | SignatureDoesNotMatch | ExpiredToken | RequestExpired)
		say "AWS does not take these credentials: sign in again, or see 'aws sts get-caller-identity'." ;;
	VcpuLimitExceeded | InstanceLimitExceeded)
		say "The account's quota of this region is used up: ask AWS for more, end other instances, or choose a smaller --node-type." ;;
	InsufficientInstanceCapacity | Unsupported)
		say "AWS has none of this type in that zone now: run this again later, or with another --node-type." ;;
	RequestLimitExceeded | Throttling) say "Too many calls at once: run this again in a minute." ;;
	OptInRequired) say "The account is not active in this region." ;;
	'')
		case $(cat "$tmp/err") in
		*redentials*) say "No AWS credentials were found: run 'aws configure', or set AWS_PROFILE." ;;
		*'Could not connect to the endpoint'*) say "AWS is not reached: is there a region $region, and a way to the internet?" ;;
		esac
		;;
	esac
}

# save NAME VALUE keeps a setting for the next run; a setting is one line.
save() {
	{
		sed "/^$1=/d" "$state/settings" 2>/dev/null || true
		printf '%s=%s\n' "$1" "$2"
	} >"$state/settings.new"
	mv "$state/settings.new" "$state/settings"
}

# saved NAME prints it.
saved() { sed -n "s/^$1=//p" "$state/settings" 2>/dev/null || true; }

# find_region is of --region, the last run, the environment or the profile.
find_region() {
	[ -n "$region" ] || region=$(saved region)
	[ -n "$region" ] || region=${AWS_REGION:-${AWS_DEFAULT_REGION:-}}
	[ -n "$region" ] || region=$(aws configure get region 2>/dev/null) || true
	[ -n "$region" ] || usage_error "no region: give --region, such as eu-central-1"
	case $region in *[!a-z0-9-]*) usage_error "--region $region: want a name such as eu-central-1" ;; esac
}

# check_cluster refuses what is no ID.
check_cluster() {
	case $cluster in
	[0-9a-f][0-9a-f][0-9a-f][0-9a-f][0-9a-f][0-9a-f]) ;;
	*) usage_error "--cluster $cluster: want the six hexadecimal digits of a deployment" ;;
	esac
}

ours() { printf 'Name=tag:workmanager:cluster,Values=%s' "$cluster"; }

# tags ROLE [KEY VALUE] are those of one thing, as --tag-specifications takes them.
tags() {
	printf '[{Key=Name,Value=workmanager %s %s},{Key=workmanager:cluster,Value=%s},{Key=workmanager:role,Value=%s}' "$cluster" "$1${3:+ $3}" "$cluster" "$1"
	while [ $# -ge 3 ]; do
		printf ',{Key=%s,Value=%s}' "$2" "$3"
		role=$1
		shift 3
		set -- "$role" "$@"
	done
	printf ']'
}

# instances ROLE prints those that are not gone: ID, state, node.
instances() {
	call ec2 describe-instances --filters "$(ours)" "Name=tag:workmanager:role,Values=$1" \
		Name=instance-state-name,Values=pending,running,stopping,stopped,shutting-down \
		--query "Reservations[].Instances[].[InstanceId,State.Name,Tags[?Key=='workmanager:node']|[0].Value]"
}

# inventory prints all that is there of the cluster, one thing a line; what no
# longer costs anything and goes by itself is not among it.
inventory() {
	list instance ec2 describe-instances --filters "$(ours)" \
		Name=instance-state-name,Values=pending,running,stopping,stopped,shutting-down \
		--query "Reservations[].Instances[].[InstanceId,Tags[?Key=='workmanager:role']|[0].Value,InstanceType,State.Name]" || return 1
	list volume ec2 describe-volumes --filters "$(ours)" --query 'Volumes[].[VolumeId,State]' || return 1
	list security-group ec2 describe-security-groups --filters "$(ours)" --query 'SecurityGroups[].[GroupId,GroupName]' || return 1
	list key-pair ec2 describe-key-pairs --filters "$(ours)" --query 'KeyPairs[].[KeyName]' || return 1
	[ -z "$(saved profile)" ] || return 0 # somebody else's
	profile_of || return 1
	[ -z "$profile" ] || say "instance-profile $profile"
	list role iam get-role --role-name "wm-$cluster-node" --query Role.RoleName || [ "$(code)" = NoSuchEntity ]
}

# list KIND ARGS... prints what a call answers, each line after its kind.
list() {
	kind=$1
	shift
	call "$@" >"$tmp/list" || return 1
	sed "/^\$/d; s/^/$kind /" "$tmp/list"
}

# profile_of finds the instance profile and its role, "" if there is none.
profile_of() {
	profile=''
	profile_role=''
	if call iam get-instance-profile --instance-profile-name "wm-$cluster-node" \
		--query 'InstanceProfile.[InstanceProfileName,Roles[0].RoleName]' >"$tmp/profile"; then
		read -r profile profile_role <"$tmp/profile"
		[ "$profile_role" != None ] || profile_role=''
	elif [ "$(code)" != NoSuchEntity ]; then
		return 1
	fi
}

# rules_of GROUPS prints the rules of security groups, one a line: ID of the
# rule, group, way, protocol, port, with whom.
rules_of() {
	call ec2 describe-security-group-rules --filters "Name=group-id,Values=$1" \
		--query 'SecurityGroupRules[].[SecurityGroupRuleId,GroupId,IsEgress,IpProtocol,FromPort,ToPort,CidrIpv4,CidrIpv6,ReferencedGroupInfo.GroupId]' >"$tmp/list" || return 1
	awk '{
		with = ""
		for (i = 7; i <= 9; i++) if ($i != "None") with = $i
		port = $5 == $6 ? $5 : $5 "-" $6
		print $1, $2, $3 == "True" ? "out" : "in", $4, port, with
	}' "$tmp/list"
}
