#!lua flags=allow-oom
-- include _request.lua
-- Request slot: make the state of a new request, once. It is small: whether there is room for the request, the queue says.
-- ARGV[2..] rid user model payload ttl_s redrive_of ('' = none)
-- Returns {OK, status, epoch, how often it was submitted before it began} or {CONFLICT}: the id belongs to another user
-- or another model's queue.
local s = redis.call('HMGET', STATE, 'user', 'model', 'status', 'epoch')
if s[1] then
  if s[1] ~= ARGV[3] or s[2] ~= ARGV[4] then return { 'CONFLICT' } end
  return { 'OK', s[3], tonumber(s[4]), s[3] == 'new' and redis.call('HINCRBY', STATE, 'submits', 1) or 0 }
end
new_state(ARGV[2], ARGV[3], ARGV[4], ARGV[5])
if ARGV[7] ~= '' then redis.call('HSET', STATE, 'redrive_of', ARGV[7]) end
redis.call('EXPIRE', STATE, ARGV[6])
return { 'OK', 'new', 0, redis.call('HINCRBY', STATE, 'submits', 1) }
