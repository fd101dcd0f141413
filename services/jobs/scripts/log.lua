#!lua
-- include _job.lua
-- Job slot: one more line of the job's log.
-- ARGV line, most lines
-- Returns 1, or 0 when there is no such job.
if redis.call('EXISTS', JOB) == 0 then return 0 end
add_line(ARGV[1], ARGV[2])
local ttl = redis.call('TTL', JOB)
if ttl > 0 then redis.call('EXPIRE', LOG, ttl) end
return 1
