-- Health of a DanmNet, TenantNetwork, ClusterNetwork or TenantConfig. Networks that came from a bundle may have no conditions:
-- then they are what the bundle says, and the NetworkBundle's health tells how far that is.
if obj.metadata.deletionTimestamp ~= nil then
  return {status = "Progressing", message = "is being deleted"}
end
if obj.status == nil or obj.status.conditions == nil then
  return {status = "Healthy", message = ""}
end
local seen = obj.status.observedGeneration
if seen ~= nil and seen ~= obj.metadata.generation then
  return {status = "Progressing", message = "the controller has not looked at this generation yet"}
end
local is, hs = {}, {status = "Healthy", message = ""}
for _, c in ipairs(obj.status.conditions) do
  is[c.type] = c
end
local function say(status, c)
  return {status = status, message = c.reason .. ": " .. (c.message or "")}
end
local function holds(name)
  return is[name] ~= nil and is[name].status == "True"
end
if holds("Reconciling") then
  return say("Progressing", is.Reconciling)
end
if holds("Stalled") then
  return say("Degraded", is.Stalled)
end
if is.Ready ~= nil then
  if is.Ready.status == "True" then
    return say("Healthy", is.Ready)
  end
  return say("Progressing", is.Ready)
end
return hs
