#!lua
-- include _job.lua
-- Job slot: what is known of a unit, while the job runs.
-- ARGV unit, JSON
-- Returns the state of the job and whether it shall end; nil when there is no such job.
local found = redis.call('HMGET', JOB, 'state', 'cancelling')
if not found[1] then return nil end
if not TERMINAL[found[1]] then redis.call('HSET', UNITS, ARGV[1], ARGV[2]) end
return { found[1], tonumber(found[2] or 0) }
