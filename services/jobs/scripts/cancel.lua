#!lua flags=allow-oom
-- include _job.lua
-- Job slot: a job that nobody has begun ends here; one that runs is asked to end.
-- ARGV ttl_s
-- Returns the state it has now; nil when there is no such job.
local state = redis.call('HGET', JOB, 'state')
if state == 'submitted' then
  end_job('cancelled', '', ARGV[1])
elseif state == 'running' then
  redis.call('HSET', JOB, 'cancelling', 1)
end
return redis.call('HGET', JOB, 'state')
