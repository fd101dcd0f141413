#!lua flags=allow-oom
-- include _request.lua
-- Request slot: tell readers that the owner lives though no token comes (a long prefill).
-- ARGV[2..] nonce
-- Returns {OK}, {ENDED, status}, {LOST} or {GONE}.
local s = redis.call('HMGET', STATE, 'status', 'nonce', 'n', 'toff')
if not s[1] then return { 'GONE' } end
local over = ended(s[1])
if over then return { 'ENDED', over } end
if s[2] ~= ARGV[2] then return { 'LOST' } end
redis.call('SPUBLISH', CHANNEL,
  cjson.encode({ v = VERSION, kind = 'beat', nonce = s[2], off = tonumber(s[3]), toff = tonumber(s[4]) }))
return { 'OK' }
