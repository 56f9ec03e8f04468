#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Prints the folder that holds the control plane: kube-apiserver, etcd and kubectl,
# and with --controller-manager, which the tests want and the demo does not, also
# kube-controller-manager. In this order:
#
#   1. KUBEBUILDER_ASSETS, if it is set
#   2. the user's cache folder, where 3 and 4 put them
#   3. prebuilt binaries, where they can be downloaded (setup-envtest); they come
#      without kube-controller-manager, and what needs it is skipped
#   4. a build from the Go module proxy, once: about five minutes on two cores, and
#      one and a half more for kube-controller-manager
#
# Only the folder goes to standard output; progress goes to standard error.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
say() { printf '%s\n' "$*" >&2; }

case "$*" in
"") controller_manager= ;;
--controller-manager) controller_manager=yes ;;
*) say "usage: assets.sh [--controller-manager]"; exit 2 ;;
esac

if [[ -n ${KUBEBUILDER_ASSETS:-} ]]; then
	for binary in kube-apiserver etcd kubectl; do
		[[ -x $KUBEBUILDER_ASSETS/$binary ]] || { say "KUBEBUILDER_ASSETS=$KUBEBUILDER_ASSETS has no $binary: unset it, or name a folder that has kube-apiserver, etcd and kubectl"; exit 1; }
	done
	printf '%s\n' "$KUBEBUILDER_ASSETS"
	exit 0
fi

recipe=2 # count on when binaries that were built before must be built anew
version=$(cd "$here" && go list -m -f '{{.Version}}' k8s.io/kubernetes)
key=$(cat "$here/go.mod" "$here/go.sum" | git hash-object --stdin | cut -c1-12)-$recipe
cache=${XDG_CACHE_HOME:-$HOME/.cache}/rpi-connect-operator/controlplane
assets=$cache/$version-$(go env GOOS)-$(go env GOARCH)-$key

# have tells whether all that is wanted is there; of downloaded binaries that is
# all there is.
have() {
	[[ -d $assets ]] && [[ -z $controller_manager || -e $assets/downloaded || -x $assets/kube-controller-manager ]]
}
answer() { printf '%s\n' "$assets"; exit 0; }
have && answer

# One at a time: a second clone waits for the first one's binaries.
mkdir -p "$cache"
exec 9>"$cache/lock"
if ! flock -n 9; then
	say "Another build of the control plane is under way; waiting for it."
	flock 9
fi
have && answer

work=$(mktemp -d "$cache/unfinished.XXXXXX")
trap 'rm -rf "$work"' EXIT

minor=${version#v1.}
minor=${minor%%.*}
stamp=()
for package in k8s.io/component-base/version k8s.io/client-go/pkg/version; do
	stamp+=("-X $package.gitVersion=$version" "-X $package.gitMajor=1" "-X $package.gitMinor=$minor" "-X $package.gitTreeState=clean")
done

# build builds programs side by side, into $work: while one is linked, which keeps a
# single core busy, the others are compiled.
build() { # packages
	local began=$SECONDS pid
	(cd "$here" && CGO_ENABLED=0 go build -trimpath -ldflags "-s -w ${stamp[*]}" -o "$work/" "$@") >&2 &
	pid=$!
	while kill -0 "$pid" 2>/dev/null; do
		sleep 1
		((($SECONDS - began) % 20)) || say "  … $((SECONDS - began)) s"
	done
	wait "$pid"
	say "  built in $((SECONDS - began)) s"
}

if [[ -d $assets ]]; then
	say "Building kube-controller-manager from source: about a minute and a half on two cores, once."
	build k8s.io/kubernetes/cmd/kube-controller-manager
	mv "$work/kube-controller-manager" "$assets/"
	answer
fi

# The folder appears whole or not at all.
finish() {
	chmod 755 "$work"
	mv "$work" "$assets"
	answer
}

say "Looking for prebuilt binaries of Kubernetes $version …"
mkdir "$work/download"
envtest=$work/download/setup-envtest
(cd "$here/../../tools" && go build -o "$envtest" sigs.k8s.io/controller-runtime/tools/setup-envtest) >&2
# The index tells quickly whether there is a way to the internet; a download may
# take as long as it takes.
if timeout 20 "$envtest" list >/dev/null 2>&1 &&
	found=$("$envtest" use -p path --bin-dir "$work/download/bin" "${version#v}" 2>/dev/null) && [[ -n $found ]]; then
	cp "$found"/* "$work/"
	chmod -R u+w "$work/download"
	rm -rf "$work/download"
	touch "$work/downloaded"
	finish
fi
rm -rf "$work/download"

programs=(k8s.io/kubernetes/cmd/kube-apiserver k8s.io/kubernetes/cmd/kubectl go.etcd.io/etcd/server/v3)
minutes="about five minutes"
if [[ -n $controller_manager ]]; then
	programs+=(k8s.io/kubernetes/cmd/kube-controller-manager)
	minutes="about seven minutes"
fi
say "None to be had. Building the control plane from source: $minutes on two cores, once; it is kept in $cache."
build "${programs[@]}"
mv "$work/server" "$work/etcd"
finish
