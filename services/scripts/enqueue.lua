#!lua
-- Queue slot: put a request on the work queue, once.
-- KEYS[1] requests, KEYS[2] ids, KEYS[3] users; ARGV rid user payload base force max_queue max_user
-- Returns {OK, entry id}, {DUP, entry id}, {FULL, length} or {USER, count}.
local rid, user, force = ARGV[1], ARGV[2], ARGV[5] == '1'
local known = redis.call('HGET', KEYS[2], rid)
if known and #redis.call('XRANGE', KEYS[1], known, known) == 1 then return { 'DUP', known } end
local length = redis.call('XLEN', KEYS[1])
local in_flight = tonumber(redis.call('HGET', KEYS[3], user) or 0)
if not force then
  if length >= tonumber(ARGV[6]) then return { 'FULL', length } end
  if in_flight >= tonumber(ARGV[7]) then return { 'USER', in_flight } end
end
-- Always at 0: a group made at $ would pass over entries that nobody holds.
redis.pcall('XGROUP', 'CREATE', KEYS[1], 'workers', '0', 'MKSTREAM')
local id = redis.call('XADD', KEYS[1], '*', 'rid', rid, 'user', user, 'payload', ARGV[3], 'base', ARGV[4])
redis.call('HSET', KEYS[2], rid, id)
redis.call('HINCRBY', KEYS[3], user, 1)
return { 'OK', id }
