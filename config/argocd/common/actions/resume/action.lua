-- SPDX-License-Identifier: Apache-2.0
if obj.metadata.annotations ~= nil then
  obj.metadata.annotations["rpi-connect.dev/suspend"] = nil
end
return obj
