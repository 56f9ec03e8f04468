-- SPDX-License-Identifier: Apache-2.0
obj.spec.paused = true
return obj
