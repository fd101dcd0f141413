#!lua flags=allow-oom
-- include _memory.lua
-- include _queue.lua
-- Queue slot: put a request on the work queue, once, and give it its place in line. This is the door: what is refused for
-- want of memory is refused here, and whatever is in may be written to its end.
-- A user's requests take one turn each, beginning with the turn that is served now (start-time fair queueing with a cost
-- of one): so a user's first one waits for at most one request of every other user, and for at most two when the user
-- was served in this turn already. An address pays an eighth of a turn for each request, whoever asks there: eight people
-- behind it wait no longer than one, and a thousand cookies do not stand before everybody else.
-- ARGV rid user payload base force priority control model address max_requests max_user max_address max_bytes
-- max_user_bytes max_wait_ms full_percent
-- Returns {OK, entry id}, {DUP, entry id}, or why it is refused: {FULL, length}, {USER, count}, {ADDRESS, count},
-- {BYTES}, {USER_BYTES}, {MEMORY, percent} or {LATE, wait in ms}.
local rid, user, payload, base, priority = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[6]
local address, fresh = ARGV[9], tonumber(base) == 0
local OTHERS_SHARE, KNOWN_PACE = 0.8, 4

local function most(position) return tonumber(ARGV[position]) end

local function how_many(key, field) return tonumber(redis.call('HGET', key, field) or 0) end

-- The turn of a user who comes now; it is taken by `keep_turn`.
local function next_turn()
  local served = how_many(TURNS, '#' .. priority)
  local last = redis.call('HGET', TURNS, priority .. ' ' .. user)
  local turn = last and math.max(last + 1, served) or served
  if address == '' then return turn end
  local of_all = redis.call('HGET', TURNS, priority .. ' ' .. of_address(address))
  return math.max(turn, math.floor(of_all and math.max(of_all + ADDRESS_SHARE, served) or served))
end

local function keep_turn(turn)
  redis.call('HSET', TURNS, priority .. ' ' .. user, turn)
  if address == '' then return end
  local field, served = priority .. ' ' .. of_address(address), how_many(TURNS, '#' .. priority)
  local of_all = redis.call('HGET', TURNS, field)
  redis.call('HSET', TURNS, field, string.format('%.3f', of_all and math.max(of_all + ADDRESS_SHARE, served) or served))
end

-- How long whoever stands at a place waits, by the pace of the line; 0 while that is not known.
local function wait_ms(place)
  local pace = redis.call('HMGET', PACE, 'served', 'span_ms')
  if tonumber(pace[1] or 0) < KNOWN_PACE then return 0 end
  return redis.call('ZCOUNT', WAITING, '-inf', place) * pace[2] / pace[1]
end

local function refusal(place)
  local length, in_flight = redis.call('XLEN', REQUESTS), how_many(USERS, user)
  local share = in_flight > 0 and OTHERS_SHARE or 1 -- the rest is for users who have nothing here
  if length >= share * most(10) then return { 'FULL', length } end
  if in_flight >= most(11) then return { 'USER', in_flight } end
  local here = address ~= '' and how_many(USERS, of_address(address)) or 0
  if here >= most(12) then return { 'ADDRESS', here } end
  if how_many(BYTES, ALL) + #payload > share * most(13) and length > 0 then return { 'BYTES' } end
  if how_many(BYTES, user) + #payload > most(14) and in_flight > 0 then return { 'USER_BYTES' } end
  local percent = percent_of_memory()
  if percent >= most(16) then return { 'MEMORY', percent } end
  local wait = wait_ms(place)
  if wait > most(15) then return { 'LATE', math.floor(wait) } end
end

local known = redis.call('HGET', IDS, rid)
if known and #redis.call('XRANGE', REQUESTS, known, known) == 1 then return { 'DUP', known } end
if redis.call('XLEN', REQUESTS) == 0 then redis.call('DEL', USERS, BYTES) end -- older builds count less out than in
local turn = fresh and next_turn()
local place = RETRY -- it ran before
if fresh then place = priority == 'batch' and BATCH + turn or turn end
local refused = ARGV[5] ~= '1' and refusal(place)
if refused then return refused end

redis.pcall('XGROUP', 'CREATE', REQUESTS, GROUP, '0', 'MKSTREAM')
local fields = { 'rid', rid, 'user', user, 'payload', payload, 'base', base, 'priority', priority, 'v', VERSION }
if address ~= '' then
  fields[#fields + 1] = 'address'
  fields[#fields + 1] = address
end
local id = redis.call('XADD', REQUESTS, '*', unpack(fields))
redis.call('HSET', IDS, rid, id)
count_entry(user, address, #payload, 1)
if fresh then keep_turn(turn) end
stand_in_line(id, rid, user, place, ARGV[7], ARGV[8])
return { 'OK', id }
