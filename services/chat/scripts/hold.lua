#!lua flags=allow-oom
-- include _queue.lua
-- Queue slot: what only the owner of a pending entry may do, or somebody who saw that its lease is over.
--   renew: reset its idle time.  raise: set its delivery count to ARGV[5].
--   handback: take it from its owner and let it stand in line at place ARGV[5], if it has been idle for ARGV[7] ms.
-- ARGV entry id, owner, delivery count, action, number; for handback also rid, idle ms, control, model, user
-- Returns {OK} or {NO}.
local id, owner, action, number = ARGV[1], ARGV[2], ARGV[4], ARGV[5]
local held = holder(id)
if not held or held[2] ~= owner or held[4] ~= tonumber(ARGV[3]) then return { 'NO' } end
if action == 'renew' then
  redis.call('XCLAIM', REQUESTS, GROUP, owner, 0, id, 'JUSTID')
elseif action == 'raise' then
  redis.call('XCLAIM', REQUESTS, GROUP, owner, 0, id, 'RETRYCOUNT', number, 'JUSTID')
else
  if held[3] < tonumber(ARGV[7]) then return { 'NO' } end -- renewed since it was seen
  redis.call('XCLAIM', REQUESTS, GROUP, HANDBACK, 0, id, 'JUSTID')
  stand_in_line(id, ARGV[6], ARGV[10], number, ARGV[8], ARGV[9])
end
return { 'OK' }
