#!lua flags=allow-oom
-- include _memory.lua
-- include _queue.lua
-- Queue slot: put a request on the work queue, once, and give it its place in line. This is the door: what is refused for
-- want of memory is refused here, and whatever is in may be written to its end.
-- Users share by tokens (start-time fair queueing). A request costs the tokens that it is expected to use, divided by the
-- weight of its user, and the next one of that user stands so far behind it. A user with nothing in line begins at the
-- place that is served now: so a first request waits for at most one request of every other user. When a request ends,
-- `settle` charges what it used. An address pays an eighth for each request, whoever asks there: eight people behind it
-- wait no longer than one, and a thousand cookies do not stand before everybody else.
-- ARGV rid user payload base force priority control model address max_requests max_user max_address max_bytes
-- max_user_bytes max_wait_ms full_percent prompt_tokens most_answer_tokens weight
-- Returns {OK, entry id}, {DUP, entry id}, or why it is refused: {FULL, length}, {USER, count}, {ADDRESS, count},
-- {BYTES}, {USER_BYTES}, {MEMORY, percent} or {LATE, wait in ms}.
local rid, user, payload, base, priority = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[6]
local address, fresh = ARGV[9], tonumber(base) == 0
local OTHERS_SHARE, KNOWN_PACE = 0.8, 4

local function most(position) return tonumber(ARGV[position]) end

local function how_many(key, field) return tonumber(redis.call('HGET', key, field) or 0) end

-- What the request is expected to cost: an answer is as long as the user's last ones.
local function expected_cost()
  local EXPECTED, MOST = 256, 16384 -- tokens of an answer of which nothing is known; of a request
  local answer = math.min(most(18), tonumber(redis.call('HGET', TURNS, of_answers(priority, user))) or EXPECTED)
  return math.max(1, cost_of(math.min(most(17) + answer, MOST), ARGV[19]))
end

local function start_of_address()
  local of_all = redis.call('HGET', TURNS, priority .. ' ' .. of_address(address))
  return of_all and math.max(of_all + ADDRESS_SHARE, served_in(priority)) or served_in(priority)
end

-- The place of a user's request that comes now; `keep_place` takes it. The last place that the user has paid for is kept.
local function next_place(cost)
  local paid = redis.call('HGET', TURNS, priority .. ' ' .. user)
  local place = paid and math.max(paid + 1, served_in(priority)) or served_in(priority)
  if address == '' then return place end
  return math.max(place, math.ceil(start_of_address() - cost * (1 - ADDRESS_SHARE)))
end

local function keep_place(place, cost)
  redis.call('HSET', TURNS, priority .. ' ' .. user, place + cost - 1)
  if address == '' then return end
  local of_all = start_of_address() + (cost - 1) * ADDRESS_SHARE
  redis.call('HSET', TURNS, priority .. ' ' .. of_address(address), string.format('%.3f', of_all))
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
local cost = fresh and expected_cost() or 0
local start = fresh and next_place(cost)
local place = RETRY -- it ran before
if fresh then place = priority == 'batch' and BATCH + start or start end
local refused = ARGV[5] ~= '1' and refusal(place)
if refused then return refused end

redis.pcall('XGROUP', 'CREATE', REQUESTS, GROUP, '0', 'MKSTREAM')
local fields = { 'rid', rid, 'user', user, 'payload', payload, 'base', base, 'priority', priority, 'v', VERSION,
  'charge', cost, 'weight', ARGV[19] }
if address ~= '' then
  fields[#fields + 1] = 'address'
  fields[#fields + 1] = address
end
local id = redis.call('XADD', REQUESTS, '*', unpack(fields))
redis.call('HSET', IDS, rid, id)
count_entry(user, address, #payload, 1)
if fresh then keep_place(start, cost) end
stand_in_line(id, rid, user, place, ARGV[7], ARGV[8])
return { 'OK', id }
