#!lua
-- include _queue.lua
-- Queue slot: put a request on the work queue, once, and give it its place in line.
-- A user's requests take one turn each, beginning with the turn that is served now (start-time fair queueing with a cost
-- of one): so a user's first one waits for at most one request of every other user, and for at most two when the user
-- was served in this turn already.
-- ARGV rid user payload base force max_queue max_user priority control model
-- Returns {OK, entry id}, {DUP, entry id}, {FULL, length} or {USER, count}.
local rid, user, base, force, priority = ARGV[1], ARGV[2], ARGV[4], ARGV[5] == '1', ARGV[8]
local known = redis.call('HGET', IDS, rid)
if known and #redis.call('XRANGE', REQUESTS, known, known) == 1 then return { 'DUP', known } end
if not force then
  local length = redis.call('XLEN', REQUESTS)
  if length >= tonumber(ARGV[6]) then return { 'FULL', length } end
  local in_flight = tonumber(redis.call('HGET', USERS, user) or 0)
  if in_flight >= tonumber(ARGV[7]) then return { 'USER', in_flight } end
end
redis.pcall('XGROUP', 'CREATE', REQUESTS, GROUP, '0', 'MKSTREAM')
local id = redis.call('XADD', REQUESTS, '*', 'rid', rid, 'user', user, 'payload', ARGV[3], 'base', base,
  'priority', priority, 'v', VERSION)
redis.call('HSET', IDS, rid, id)
redis.call('HINCRBY', USERS, user, 1)

local place = RETRY -- it ran before
if tonumber(base) == 0 then
  local served = tonumber(redis.call('HGET', TURNS, '#' .. priority) or 0)
  local last = redis.call('HGET', TURNS, priority .. ' ' .. user)
  local turn = last and math.max(last + 1, served) or served
  redis.call('HSET', TURNS, priority .. ' ' .. user, turn)
  place = priority == 'batch' and BATCH + turn or turn
end
stand_in_line(id, rid, user, place, ARGV[9], ARGV[10])
return { 'OK', id }
