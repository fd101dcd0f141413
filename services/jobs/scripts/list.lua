#!lua
-- Slot of an owner: list a job that is about to be made, behind all others; so of two orders one knows the other.
-- KEYS the owner's jobs of a kind
-- ARGV job id
-- Returns all ids and times, oldest first; the last is this one's.
local OWNED, jid = KEYS[1], ARGV[1]
local t = redis.call('TIME')
local now = tonumber(t[1]) + tonumber(t[2]) / 1000000
redis.call('ZREM', OWNED, jid)
local last = redis.call('ZRANGE', OWNED, -1, -1, 'WITHSCORES')[2]
if last then now = math.max(now, tonumber(last) + 0.000002) end
redis.call('ZADD', OWNED, string.format('%.6f', now), jid)
return redis.call('ZRANGE', OWNED, 0, -1, 'WITHSCORES')
