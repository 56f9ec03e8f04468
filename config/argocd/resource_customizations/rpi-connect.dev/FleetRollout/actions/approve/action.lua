-- SPDX-License-Identifier: Apache-2.0
local annotations = obj.metadata.annotations or {}
local status = obj.status
annotations["rpi-connect.dev/approve"] = status.artefact .. "/" .. status.batch
obj.metadata.annotations = annotations
return obj
