#!lua flags=allow-oom
-- include _request.lua
-- Request slot: journal and publish tokens. Idempotent: a repeated range answers OK.
-- ARGV[2..] nonce epoch offset number_of_tokens text_offset_after event
-- Returns {OK, n}, {NEED, n}, {LOST}, {ENDED, status} or {GONE}.
local offset, count = tonumber(ARGV[4]), tonumber(ARGV[5])
local s = redis.call('HMGET', STATE, 'status', 'nonce', 'n')
if not s[1] then return { 'GONE' } end
local over = ended(s[1])
if over then return { 'ENDED', over } end
if s[2] ~= ARGV[2] then return { 'LOST' } end
local n = tonumber(s[3])
if offset + count <= n then return { 'OK', n } end
if offset ~= n then return { 'NEED', n } end
append_entry(ARGV[3], 'tokens', ARGV[7])
redis.call('HSET', STATE, 'n', n + count, 'toff', ARGV[6])
if n == 0 then redis.call('HSETNX', STATE, 'first_ms', now_ms()) end
return { 'OK', n + count }
