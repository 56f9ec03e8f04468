-- SPDX-License-Identifier: Apache-2.0
-- Ends what keeps the rollout back: the suspension, a pause by hand, one by failures.
local os = require("os")
if obj.metadata.annotations ~= nil then
  obj.metadata.annotations["rpi-connect.dev/suspend"] = nil
end
if obj.spec.paused then
  obj.spec.paused = false
end
if obj.status ~= nil and obj.status.pauseReason == "Failures" then
  local annotations = obj.metadata.annotations or {}
  annotations["rpi-connect.dev/resume-requested-at"] = os.date("!%Y-%m-%dT%H:%M:%SZ")
  obj.metadata.annotations = annotations
end
return obj
