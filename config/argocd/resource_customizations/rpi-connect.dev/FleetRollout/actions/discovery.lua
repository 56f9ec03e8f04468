-- SPDX-License-Identifier: Apache-2.0
local annotations = obj.metadata.annotations or {}
local suspended = annotations["rpi-connect.dev/suspend"] == "true"

local actions = {}
actions["reconcile"] = {["disabled"] = suspended}
actions["suspend"] = {["disabled"] = suspended}

local status = obj.status or {}
local paused = obj.spec.paused == true
actions["approve"] = {["disabled"] = status.phase ~= "AwaitingApproval"}
actions["pause"] = {["disabled"] = paused or status.phase == "Complete" or status.phase == "RolledBack"}
actions["resume"] = {["disabled"] = not (suspended or paused or status.pauseReason == "Failures")}
return actions
