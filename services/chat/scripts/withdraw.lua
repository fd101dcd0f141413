#!lua flags=allow-oom
-- include _queue.lua
-- Queue slot: forget a request that has ended while it waited, in this line or in that of another version. One that a
-- worker owns stays: that worker forgets it.
-- ARGV rid, user, reason ('' = not dead)
-- Returns 1 when this call removed it.
local rid, user = ARGV[1], ARGV[2]

-- Its turn goes to the user's next request, and so on: who changed their mind stands where they would without it.
local function give_turn_to_next(place)
  local class, first, last = 'interactive', 0, '(' .. BATCH
  if place >= BATCH then class, first, last = 'batch', BATCH, '+inf' end
  if place < first or place - first < tonumber(redis.call('HGET', TURNS, '#' .. class) or 0) then return end
  for _, name in ipairs(redis.call('ZRANGEBYSCORE', WAITING, '(' .. place, last)) do
    if string.match(name, '%S*$') == user then redis.call('ZINCRBY', WAITING, -1, name) end
  end
  local field = class .. ' ' .. user
  if redis.call('HEXISTS', TURNS, field) == 1 then redis.call('HINCRBY', TURNS, field, -1) end
end

local function give_share_back(place, id)
  local entry = redis.call('XRANGE', REQUESTS, id, id)[1]
  local address = entry and by_name(entry[2]).address
  if not address or place < 0 then return end
  local field = (place >= BATCH and 'batch' or 'interactive') .. ' ' .. of_address(address)
  local of_all = redis.call('HGET', TURNS, field)
  if of_all then redis.call('HSET', TURNS, field, string.format('%.3f', of_all - ADDRESS_SHARE)) end
end

local id = redis.call('HGET', IDS, rid)
if not id then return 0 end
local place, held = redis.call('ZSCORE', WAITING, member(id, rid, user)), holder(id)
if place then
  give_turn_to_next(tonumber(place))
  give_share_back(tonumber(place), id)
elseif held and held[2] ~= HANDBACK then
  return 0
end
return forget(id, rid, user, ARGV[3])
