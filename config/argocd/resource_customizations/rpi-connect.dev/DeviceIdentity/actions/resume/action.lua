-- SPDX-License-Identifier: Apache-2.0
-- Copied from config/argocd/common by make argocd.
if obj.metadata.annotations ~= nil then
  obj.metadata.annotations["rpi-connect.dev/suspend"] = nil
end
return obj
