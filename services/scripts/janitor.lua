#!lua flags=allow-oom
-- include _queue.lua
-- Queue slot: entries that neither stand in line nor have an owner would never be delivered again: let them stand in
-- line. Half a lost script leaves such, and XGROUP DELCONSUMER.
-- ARGV most entries to look at, version of the protocol, control, model
-- Returns the number of entries rescued.
local num_waiting, num_held = redis.call('ZCARD', WAITING), 0
local summary = redis.pcall('XPENDING', REQUESTS, GROUP)
for _, row in ipairs(summary[4] or {}) do
  if row[1] ~= HANDBACK then num_held = num_held + row[2] end
end
if redis.call('XLEN', REQUESTS) == num_waiting + num_held then return 0 end

local rescued = 0
for _, entry in ipairs(redis.call('XRANGE', REQUESTS, '-', '+', 'COUNT', ARGV[1])) do
  local fields = {}
  for i = 1, #entry[2], 2 do fields[entry[2][i]] = entry[2][i + 1] end
  local rid, user, held = fields.rid or '', fields.user or '', holder(entry[1])
  local ours = (fields.v or ARGV[2]) == ARGV[2]
  local free = not (held and held[2] ~= HANDBACK)
  if ours and free and not redis.call('ZSCORE', WAITING, member(entry[1], rid, user)) then
    stand_in_line(entry[1], rid, user, RETRY, ARGV[3], ARGV[4])
    rescued = rescued + 1
  end
end
return rescued
