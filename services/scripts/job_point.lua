#!lua
-- include _job.lua
-- Job slot: one point of a loss curve; the last word on a step stands.
-- ARGV step, JSON
-- Returns 1, or 0 when there is no such job.
if redis.call('EXISTS', JOB) == 0 then return 0 end
redis.call('HSET', POINTS, ARGV[1], ARGV[2])
local ttl = redis.call('TTL', JOB)
if ttl > 0 then redis.call('EXPIRE', POINTS, ttl) end
return 1
