# SPDX-License-Identifier: GPL-2.0-or-later
# Completion for keel: commands, options as keel lists them, the daemon's guests by name, and files.
_keel()
{
	local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD - 1]} words= n=1 verb=
	COMPREPLY=()
	while [ "$n" -lt "$COMP_CWORD" ]; do # options before the command
		case ${COMP_WORDS[n]} in
		-c | --connect) n=$((n + 1)) ;;
		-*) ;;
		*) verb=${COMP_WORDS[n]}; break ;;
		esac
		n=$((n + 1))
	done
	case $verb in
	run)
		case $prev in
		--engine) words="auto kvm soft soft,translate=off" ;;
		--net) words="none user" ;;
		--serial | --console | --debugcon) words="stdio null file: unix:" ;;
		--qmp) words="unix:" ;;
		--sandbox) words="on paths off" ;;
		*) words=$(keel run --help 2>/dev/null | sed -n 's/^  \(--[a-z-]*\).*/\1/p') ;;
		esac ;;
	host) words=--json ;;
	image) [ "$COMP_CWORD" = $((n + 1)) ] && words=$(keel image --help 2>/dev/null | sed -n 's/^  \([a-z]*\) .*/\1/p') ;;
	*) words=$(keel --complete "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null) ;;
	esac
	# Names may have blanks: one candidate a line.
	local IFS=$'\n'
	mapfile -t COMPREPLY < <(compgen -W "$words" -- "$cur")
	[ ${#COMPREPLY[@]} -gt 0 ] || mapfile -t COMPREPLY < <(compgen -f -- "$cur")
}
complete -F _keel keel
