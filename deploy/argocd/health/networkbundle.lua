-- Health of a NetworkBundle, from the conditions that kstatus reads too: Reconciling, Stalled, Ready.
local hs = {status = "Progressing", message = "the controller has not looked at it yet"}
if obj.metadata.deletionTimestamp ~= nil then
  hs.message = "is being deleted"
  return hs
end
if obj.spec ~= nil and obj.spec.suspend == true then
  return {status = "Suspended", message = "suspended; what is rolled out stays"}
end
if obj.status == nil or obj.status.conditions == nil then
  return hs
end
if obj.status.observedGeneration ~= obj.metadata.generation then
  hs.message = "the controller has not looked at this generation yet"
  return hs
end
local is = {}
for _, c in ipairs(obj.status.conditions) do
  if c.status == "True" then
    is[c.type] = c
  elseif c.type == "Ready" then
    hs.message = c.reason .. ": " .. (c.message or "")
  end
end
local function say(status, c)
  return {status = status, message = c.reason .. ": " .. (c.message or "")}
end
if is.Reconciling ~= nil then
  return say("Progressing", is.Reconciling)
end
if is.Stalled ~= nil then
  return say("Degraded", is.Stalled)
end
if is.Ready ~= nil then
  return say("Healthy", is.Ready)
end
return hs
