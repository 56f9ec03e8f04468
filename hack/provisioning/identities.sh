#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Prints a DeviceIdentity for each <serial number>.pub in a folder, as the vendor's
# provisioner leaves them there:
#   hack/provisioning/identities.sh keys | kubectl apply -f -
set -euo pipefail

for file in "$1"/*.pub; do
	serial=$(basename "$file" .pub | tr '[:upper:]' '[:lower:]')
	key=$(sed 's/\r$//; s/^/    /' "$file")
	cat <<MANIFEST
---
apiVersion: rpi-connect.dev/v1alpha1
kind: DeviceIdentity
metadata:
  name: "$serial"
spec:
  publicKey: |
$key
MANIFEST
done
