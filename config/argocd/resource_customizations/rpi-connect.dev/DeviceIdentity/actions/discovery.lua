-- SPDX-License-Identifier: Apache-2.0
-- Copied from config/argocd/common by make argocd.
local annotations = obj.metadata.annotations or {}
local suspended = annotations["rpi-connect.dev/suspend"] == "true"

local actions = {}
actions["reconcile"] = {["disabled"] = suspended}
actions["suspend"] = {["disabled"] = suspended}
actions["resume"] = {["disabled"] = not suspended}
return actions
