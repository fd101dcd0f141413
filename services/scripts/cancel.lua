#!lua flags=allow-oom
-- include _request.lua
-- Request slot: end a request whatever stage it is in. It writes the terminal itself, so no worker need live.
-- ARGV[2..] user ttl_s
-- Returns {OK}, {ENDED, status}, {FORBIDDEN} or {GONE}.
local s = redis.call('HMGET', STATE, 'status', 'user', 'nonce', 'n', 'toff', 'epoch')
if not s[1] then return { 'GONE' } end
if s[2] ~= ARGV[2] then return { 'FORBIDDEN' } end
local over = ended(s[1])
if over then return { 'ENDED', over } end
local _, last_epoch = last_entry()
local epoch = math.max(tonumber(s[6]), last_epoch, 1)
write_terminal(epoch, 'cancelled', 'cancelled', terminal_event('cancelled', s[3], s[4], s[5], 'cancelled', ''), ARGV[3])
return { 'OK' }
