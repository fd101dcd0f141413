#!lua flags=allow-oom
-- include _queue.lua
-- Queue slot: forget a request that has ended while it waited, in this line or in that of another version. One that a
-- worker owns stays: that worker forgets it.
-- ARGV rid, user, reason ('' = not dead)
-- Returns 1 when this call removed it.
local rid, user = ARGV[1], ARGV[2]

-- Its place goes to the user's next request, and so on: who changed their mind stands where they would without it.
local function give_place_back(place, id)
  local class, from = 'interactive', 0
  if place >= BATCH then class, from = 'batch', BATCH end
  if place < from then return end -- it ran before
  local entry = redis.call('XRANGE', REQUESTS, id, id)[1]
  local fields = entry and by_name(entry[2]) or {}
  local cost = tonumber(fields.charge) or 1
  if fields.address then pay_share(class, fields.address, -cost) end
  if place - from >= served_in(class) then move(class, user, -cost, place, place) end
end

local id = redis.call('HGET', IDS, rid)
if not id then return 0 end
local place, held = redis.call('ZSCORE', WAITING, member(id, rid, user)), holder(id)
if place then
  give_place_back(tonumber(place), id)
elseif held and held[2] ~= HANDBACK then
  return 0
end
return forget(id, rid, user, ARGV[3])
