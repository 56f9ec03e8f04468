#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Changes every decision of the core in turn and runs the package's tests each time.
# What is printed are the changes that no test has noticed; docs/reliability.md says
# why some of them may stay. PACKAGES="./internal/…" are others than these.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
packages=${PACKAGES:-./internal/connectclient/budget ./internal/controller/lifecycle
	./internal/controller/deployment ./internal/controller/authkey}
# The limit for a change that loops is a multiple of what the tests take: a result from
# the cache would make that nothing.
export GOFLAGS="-count=1 -short"
for package in $packages; do
	echo "== $package"
	nice go tool -modfile=tools/checks/go.mod gremlins unleash "$package" \
		--workers 2 --test-cpu 1 --timeout-coefficient 60 --output-statuses lt
done
