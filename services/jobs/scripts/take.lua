#!lua
-- include _job.lua
-- Job slot: a process begins a unit; it has the unit's lock.
-- ARGV unit, who, 1: also when the job shall end
-- Returns how often the unit was begun without an orderly end, this time included; 0 when the job shall not go on.
local unit = ARGV[1]
local found = redis.call('HMGET', JOB, 'state', 'cancelling')
if found[1] ~= 'running' or (found[2] == '1' and ARGV[3] ~= '1') then return 0 end
redis.call('HSET', TASKS, 'held ' .. unit, ARGV[2])
return redis.call('HINCRBY', TASKS, 'starts ' .. unit, 1)
