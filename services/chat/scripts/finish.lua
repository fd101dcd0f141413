#!lua flags=allow-oom
-- include _memory.lua
-- include _request.lua
-- Request slot: the owner ends the answer.
-- ARGV[2..] nonce epoch number_of_tokens status code event ttl_s
-- Returns {OK}, {ENDED, status}, {NEED, n}, {LOST} or {GONE}.
local s = redis.call('HMGET', STATE, 'status', 'nonce', 'n')
if not s[1] then return { 'GONE' } end
local over = ended(s[1])
if over then return { 'ENDED', over } end
if s[2] ~= ARGV[2] then return { 'LOST' } end
if tonumber(s[3]) ~= tonumber(ARGV[4]) then return { 'NEED', tonumber(s[3]) } end
local event = cjson.decode(ARGV[7])
event.usage = add_timings(event.usage or {})
redis.call('HSET', STATE, 'used', (event.usage.prompt_tokens or 0) + (event.usage.completion_tokens or 0))
write_terminal(ARGV[3], ARGV[5], ARGV[6], cjson.encode(event), ARGV[8])
return { 'OK' }
