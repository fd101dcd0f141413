#!lua flags=allow-oom
-- include _request.lua
-- Request slot: take an ended answer's text and note away. That it ended stays known for a while: a worker that has not
-- heard of the end must not begin the request again.
-- ARGV[2] user
-- Returns {OK}, {RUNNING}, {FORBIDDEN} or {GONE}.
local s = redis.call('HMGET', STATE, 'status', 'user', 'nonce', 'n', 'code')
if not s[1] then return { 'GONE' } end
if s[2] ~= ARGV[2] then return { 'FORBIDDEN' } end
local over = ended(s[1])
if not over then return { 'RUNNING' } end
local _, epoch = last_entry()
redis.call('HDEL', STATE, 'note')
redis.call('HSET', STATE, 'toff', 0)
redis.call('DEL', JOURNAL)
redis.call('XADD', JOURNAL, math.max(epoch, 1) .. '-*', 'k', over, 'e', terminal_event(over, s[3], s[4], 0, s[5] or '', ''))
redis.call('EXPIRE', STATE, KEPT_LEAST_S, 'LT')
redis.call('EXPIRE', JOURNAL, KEPT_LEAST_S, 'LT')
return { 'OK' }
