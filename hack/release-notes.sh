#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Prints what CHANGELOG.md says of a version: hack/release-notes.sh v0.1.0
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
version=${1:?usage: hack/release-notes.sh vX.Y.Z}
notes=$(awk -v heading="## ${version#v}" '
	/^## / { ours = ($0 == heading || index($0, heading " ") == 1); next }
	ours
' CHANGELOG.md)
[[ -n ${notes//[[:space:]]/} ]] || { echo "CHANGELOG.md has nothing under \"## ${version#v}\": move there what is under Unreleased" >&2; exit 1; }
printf '%s\n' "$notes"
