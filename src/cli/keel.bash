# SPDX-License-Identifier: GPL-2.0-or-later
# Completion for keel: commands, run's options as `keel run --help` lists them, and files.
_keel()
{
	local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD - 1]} words=
	COMPREPLY=()
	if [ "$COMP_CWORD" = 1 ]; then
		words=$(keel help 2>/dev/null | sed -n 's/^  \([a-z]*\) .*/\1/p')
	else
		case ${COMP_WORDS[1]} in
		run)
			case $prev in
			--engine) words="auto kvm soft soft,translate=off" ;;
			--net) words="none user" ;;
			--serial | --console | --debugcon) words="stdio null file: unix:" ;;
			--qmp) words="unix:" ;;
			*) words=$(keel run --help 2>/dev/null | sed -n 's/^  \(--[a-z-]*\).*/\1/p') ;;
			esac ;;
		host) words=--json ;;
		image) [ "$COMP_CWORD" = 2 ] && words=$(keel image --help 2>/dev/null | sed -n 's/^  \([a-z]*\) .*/\1/p') ;;
		esac
	fi
	mapfile -t COMPREPLY < <(compgen -W "$words" -- "$cur")
	[ ${#COMPREPLY[@]} -gt 0 ] || mapfile -t COMPREPLY < <(compgen -f -- "$cur")
}
complete -F _keel keel
