-- SPDX-License-Identifier: Apache-2.0
local annotations = obj.metadata.annotations or {}
local suspended = annotations["rpi-connect.dev/suspend"] == "true"

local actions = {}
actions["reconcile"] = {["disabled"] = suspended}
actions["suspend"] = {["disabled"] = suspended}
actions["resume"] = {["disabled"] = not suspended}

-- What has ended, or has been begun by the device, cannot be cancelled any more.
local state = obj.status ~= nil and obj.status.state or nil
local pending = state == nil or state == "pending"
actions["cancel"] = {["disabled"] = obj.spec.cancel == true or not pending}
return actions
