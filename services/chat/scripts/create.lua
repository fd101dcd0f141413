#!lua flags=allow-oom
-- include _memory.lua
-- include _request.lua
-- Request slot: make the state of a new request, once. Its server and that of the queue both say whether there is room;
-- if the queue has none, `discard` forgets the state again.
-- ARGV[2..] rid user model payload ttl_s redrive_of ('' = none) full_percent note ('' = none) verdict ('' = none)
-- Returns {OK, status, epoch, a number of this submit, larger than that of each before it (0 once it has begun)},
-- {MEMORY, percent} or {CONFLICT}: the id belongs to another user or another model's queue.
local s = redis.call('HMGET', STATE, 'user', 'model', 'status', 'epoch')
if s[1] then
  if s[1] ~= ARGV[3] or s[2] ~= ARGV[4] then return { 'CONFLICT' } end
  return { 'OK', s[3], tonumber(s[4]), s[3] == 'new' and redis.call('HINCRBY', STATE, 'submits', 1) or 0 }
end
local percent = percent_of_memory()
if percent >= tonumber(ARGV[8]) and ARGV[7] == '' then return { 'MEMORY', percent } end
new_state(ARGV[2], ARGV[3], ARGV[4], ARGV[5])
if ARGV[7] ~= '' then redis.call('HSET', STATE, 'redrive_of', ARGV[7]) end
if ARGV[9] ~= '' then redis.call('HSET', STATE, 'note', ARGV[9]) end
if ARGV[10] ~= '' then redis.call('HSET', STATE, 'verdict', ARGV[10]) end
redis.call('EXPIRE', STATE, ARGV[6])
-- Not from 0: a refusal that comes late must not take this state for the one before it, which `discard` forgot.
local now = redis.call('TIME')
return { 'OK', 'new', 0, redis.call('HINCRBY', STATE, 'submits', string.format('%.0f', now[1] * 1e6 + now[2])) }
