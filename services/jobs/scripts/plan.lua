#!lua
-- include _job.lua
-- Job slot: how many units the job has and how many of them were done when that became known; told once in a run.
-- ARGV number of units, of those done
-- Returns 1 when it was news.
if redis.call('HGET', JOB, 'state') ~= 'running' or redis.call('HEXISTS', JOB, 'num_units') == 1 then return 0 end
redis.call('HSET', JOB, 'num_units', ARGV[1], 'planned_done', ARGV[2], 'planned_s', now_s())
return 1
