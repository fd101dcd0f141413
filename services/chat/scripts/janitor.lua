#!lua flags=allow-oom
-- include _queue.lua
-- Queue slot: entries that neither stand in line nor have an owner would never be delivered again: let them stand in
-- line. Half a lost script leaves such, and XGROUP DELCONSUMER.
-- Entries come with their payloads, and nobody else is served meanwhile: so it looks at a few, and is called again.
-- ARGV entry id after which to look ('' = from the first), most entries to look at, control, model
-- Returns {number of entries rescued, entry id after which to go on ('' = all is well, or that was the last)}.
local after, most, control, model = unpack(ARGV)
local num_waiting, num_held = redis.call('ZCARD', WAITING), 0
local summary = redis.pcall('XPENDING', REQUESTS, GROUP)
for _, row in ipairs(summary[4] or {}) do
  if row[1] ~= HANDBACK then num_held = num_held + row[2] end
end
if redis.call('XLEN', REQUESTS) == num_waiting + num_held then return { 0, '' } end

local rescued = 0
local entries = redis.call('XRANGE', REQUESTS, after == '' and '-' or '(' .. after, '+', 'COUNT', most)
for _, entry in ipairs(entries) do
  local fields = {}
  for i = 1, #entry[2], 2 do fields[entry[2][i]] = entry[2][i + 1] end
  local rid, user, held = fields.rid or '', fields.user or '', holder(entry[1])
  local ours = not fields.v or fields.v == tostring(VERSION)
  local free = not (held and held[2] ~= HANDBACK)
  if ours and free and not redis.call('ZSCORE', WAITING, member(entry[1], rid, user)) then
    stand_in_line(entry[1], rid, user, RETRY, control, model)
    rescued = rescued + 1
  end
end
return { rescued, #entries == tonumber(most) and entries[#entries][1] or '' }
