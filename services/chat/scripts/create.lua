#!lua flags=allow-oom
-- include _memory.lua
-- include _request.lua
-- Request slot: make the state of a new request, once. Its server and that of the queue both say whether there is room;
-- if the queue has none, `discard` forgets the state again.
-- ARGV[2..] rid user model payload ttl_s redrive_of ('' = none) full_percent
-- Returns {OK, status, epoch, how often it was submitted before it began}, {MEMORY, percent} or {CONFLICT}: the id belongs
-- to another user or another model's queue.
local s = redis.call('HMGET', STATE, 'user', 'model', 'status', 'epoch')
if s[1] then
  if s[1] ~= ARGV[3] or s[2] ~= ARGV[4] then return { 'CONFLICT' } end
  return { 'OK', s[3], tonumber(s[4]), s[3] == 'new' and redis.call('HINCRBY', STATE, 'submits', 1) or 0 }
end
local percent = percent_of_memory()
if percent >= tonumber(ARGV[8]) and ARGV[7] == '' then return { 'MEMORY', percent } end
new_state(ARGV[2], ARGV[3], ARGV[4], ARGV[5])
if ARGV[7] ~= '' then redis.call('HSET', STATE, 'redrive_of', ARGV[7]) end
redis.call('EXPIRE', STATE, ARGV[6])
return { 'OK', 'new', 0, redis.call('HINCRBY', STATE, 'submits', 1) }
