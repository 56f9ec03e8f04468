-- SPDX-License-Identifier: Apache-2.0
-- Copied from config/argocd/common by make argocd.
local annotations = obj.metadata.annotations or {}
annotations["rpi-connect.dev/suspend"] = "true"
obj.metadata.annotations = annotations
return obj
