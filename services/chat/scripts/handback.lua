#!lua flags=allow-oom
-- include _request.lua
-- Request slot: a draining owner lets go, so that its successor's begin does not count as a try.
-- ARGV[2..] nonce
-- Returns {OK}, {ENDED, status}, {LOST} or {GONE}.
local s = redis.call('HMGET', STATE, 'status', 'nonce')
if not s[1] then return { 'GONE' } end
local over = ended(s[1])
if over then return { 'ENDED', over } end
if s[2] ~= ARGV[2] then return { 'LOST' } end
redis.call('HSET', STATE, 'handback', 1, 'nonce', '')
return { 'OK' }
