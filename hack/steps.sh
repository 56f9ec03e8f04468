#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Makes one target after the other: says which it is, that it goes on, and how long
# it took; stops at the first that fails; and ends with a summary.
#
#   hack/steps.sh target …
set -uo pipefail

clock() { printf '%d:%02d' $(($1 / 60)) $(($1 % 60)); }

# A step that is quiet says every half minute that it goes on.
tick() { # title
	local began=$SECONDS sleeper
	trap 'kill "$sleeper"; exit' TERM
	while :; do
		sleep 30 &
		sleeper=$!
		wait "$sleeper"
		printf '    … %s, %s\n' "$1" "$(clock $((SECONDS - began)))"
	done
}

summary=()
failed=
n=0
for target in "$@"; do
	printf '\n==> %d of %d: make %s\n' $((++n)) $# "$target"
	tick "$target" &
	ticker=$!
	disown
	began=$SECONDS
	if "${MAKE:-make}" --no-print-directory "$target"; then result=passed; else result=FAILED failed=$target; fi
	kill "$ticker"
	summary+=("$(printf '%-16s %-7s %6s' "$target" $result "$(clock $((SECONDS - began)))")")
	[[ -z $failed ]] || break
done

printf '\n'
printf '    %s\n' "${summary[@]}"
if [[ -n $failed ]]; then
	printf '\nmake %s failed; what it says is above. %d of %d steps were not run. It took %s.\n' "$failed" $(($# - n)) $# "$(clock $SECONDS)"
	exit 1
fi
printf '\nEverything holds. It took %s.\n' "$(clock $SECONDS)"
