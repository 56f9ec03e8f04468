#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Packages the Helm chart into dist, as that of a version and with the image that it installs:
#
#   HELM=helm hack/package-chart.sh vX.Y.Z registry.example.com/rpi-connect-operator:vX.Y.Z@sha256:…
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
version=$1 image=$2
chart=charts/rpi-connect-operator

digest= tag=
[[ $image != *@* ]] || { digest=${image#*@} image=${image%@*}; }
[[ ${image##*/} != *:* ]] || { tag=${image##*:} image=${image%:*}; }

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cp -r "$chart" "$work"
sed -e "s|^  repository: .*|  repository: $image|" -e "s|^  tag: .*|  tag: \"$tag\"|" -e "s|^  digest: .*|  digest: \"$digest\"|" \
	"$chart/values.yaml" > "$work/rpi-connect-operator/values.yaml"
$HELM package "$work/rpi-connect-operator" --destination dist --version "${version#v}" --app-version "$version"
