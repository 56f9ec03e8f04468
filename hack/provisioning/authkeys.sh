#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Prints an AuthKey for each line "name,tag tag" of a CSV file:
#   hack/provisioning/authkeys.sh devices.csv | kubectl apply -f -
set -euo pipefail

tr -d '\r' < "$1" | while IFS=, read -r name tags || [[ -n $name ]]; do
	[[ -z $name || $name == name ]] && continue # an empty line, the heading
	# Quoted, because YAML takes the serial number 10000000e5 for a number.
	tags=${tags:+\"${tags// /\", \"}\"}
	cat <<MANIFEST
---
apiVersion: rpi-connect.dev/v1alpha1
kind: AuthKey
metadata:
  name: "$name"
spec:
  deviceName: "$name"
  tags: [$tags]
  ttlDays: ${TTL_DAYS:-1}
MANIFEST
done
