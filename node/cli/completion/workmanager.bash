# bash completion of workmanager. It needs nothing but bash.
_workmanager() {
	local cur=${COMP_WORDS[COMP_CWORD]} words=("${COMP_WORDS[@]:0:COMP_CWORD}") opts
	COMPREPLY=()
	if [[ $cur == -* ]]; then
		words+=("$cur")
	fi
	opts=$("${words[@]}" --generate-bash-completion 2>/dev/null) || return 0
	mapfile -t COMPREPLY < <(compgen -W "$opts" -- "$cur")
}
complete -o bashdefault -o default -F _workmanager workmanager
