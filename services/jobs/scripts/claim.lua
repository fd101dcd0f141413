#!lua
-- include _job.lua
-- Job slot: may a task be sent for this unit now? Whoever is told yes sends it; so two that ask at once send one.
-- ARGV unit, seconds after which one that was sent counts as lost ('' = never)
-- Returns 1 or 0.
local unit, now = ARGV[1], tonumber(now_s())
if redis.call('HGET', JOB, 'state') ~= 'running' then return 0 end
local found = redis.call('HMGET', TASKS, 'sent ' .. unit, 'pause ' .. unit, 'failed ' .. unit)
if found[3] or (found[2] and now < tonumber(found[2])) then return 0 end
if found[1] and (ARGV[2] == '' or now - tonumber(found[1]) < tonumber(ARGV[2])) then return 0 end
redis.call('HSET', TASKS, 'sent ' .. unit, now_s())
redis.call('HDEL', TASKS, 'pause ' .. unit, 'held ' .. unit)
return 1
