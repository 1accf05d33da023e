-- Health of a NodePlan, as its node tells it. Argo CD shows NodePlans below a NetworkBundle only where it tracks them; it never
-- makes them.
local hs = {status = "Progressing", message = "the node has not reported yet"}
if obj.metadata.deletionTimestamp ~= nil then
  hs.message = "is being deleted"
  return hs
end
if obj.status == nil or obj.status.conditions == nil then
  return hs
end
if obj.status.observedGeneration ~= obj.metadata.generation then
  hs.message = "the node has not seen this generation yet"
  return hs
end
local is = {}
for _, c in ipairs(obj.status.conditions) do
  if c.status == "True" then
    is[c.type] = true
  end
end
hs.message = obj.status.phase or ""
if obj.status.reason ~= nil and obj.status.reason ~= "" then
  hs.message = hs.message .. ": " .. obj.status.reason
end
if is.Reconciling then
  return hs
end
if is.Stalled then
  hs.status = "Degraded"
elseif is.Ready then
  hs.status = "Healthy"
end
return hs
