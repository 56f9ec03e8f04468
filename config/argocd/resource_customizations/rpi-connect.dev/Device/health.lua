-- SPDX-License-Identifier: Apache-2.0
-- Copied from config/argocd/common by make argocd.
-- Health of the kinds of rpi-connect.dev; it is the same for all of them.
local hs = {status = "Progressing", message = "Waiting for the operator"}

local status = obj.status
if status == nil or status.conditions == nil then
  return hs
end

local conditions = {}
for _, condition in ipairs(status.conditions) do
  conditions[condition.type] = condition
end

local function is(type, value)
  return conditions[type] ~= nil and conditions[type].status == value
end

-- A suspended resource is not looked at, so its generation may stay behind.
if is("Suspended", "True") then
  hs.status = "Suspended"
  hs.message = conditions["Suspended"].message
  return hs
end

if status.observedGeneration == nil or status.observedGeneration ~= obj.metadata.generation then
  hs.message = "Waiting for the operator to see the new spec"
  return hs
end

local ready = conditions["Ready"]
if ready == nil then
  return hs
end
hs.message = ready.message

local reason = ready.reason
local cancelledOnRequest = reason == "Cancelled" and obj.spec ~= nil and obj.spec.cancel == true
if reason == "Superseded" or reason == "AwaitingApproval" or reason == "Paused" or cancelledOnRequest then
  hs.status = "Suspended"
elseif is("Stalled", "True") then
  hs.status = "Degraded"
elseif ready.status == "True" then
  hs.status = "Healthy"
end
return hs
