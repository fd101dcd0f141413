#!lua
-- Request slot: make the state of a new request, once.
-- KEYS[1] state; ARGV rid user model payload ttl_s
-- Returns {OK, status, epoch} or {CONFLICT}: the id belongs to another user or another model's queue.
local state = redis.call('HMGET', KEYS[1], 'user', 'model', 'status', 'epoch')
if state[1] then
  if state[1] ~= ARGV[2] or state[2] ~= ARGV[3] then return { 'CONFLICT' } end
  return { 'OK', state[3], tonumber(state[4]) }
end
local t = redis.call('TIME')
redis.call('HSET', KEYS[1], 'rid', ARGV[1], 'user', ARGV[2], 'model', ARGV[3], 'payload', ARGV[4], 'status', 'new',
  'epoch', 0, 'nonce', '', 'n', 0, 'toff', 0, 'tries', 0, 'begins', 0, 'begin_n', 0, 'handback', 0,
  'created_ms', t[1] * 1000 + math.floor(t[2] / 1000))
redis.call('EXPIRE', KEYS[1], ARGV[5])
return { 'OK', 'new', 0 }
