-- SPDX-License-Identifier: Apache-2.0
-- Copied from config/argocd/common by make argocd.
local os = require("os")
local annotations = obj.metadata.annotations or {}
annotations["rpi-connect.dev/reconcile-requested-at"] = os.date("!%Y-%m-%dT%H:%M:%SZ")
obj.metadata.annotations = annotations
return obj
