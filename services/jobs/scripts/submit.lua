#!lua
-- include _job.lua
-- Job slot: make a job, or set one going again that failed or was cancelled.
-- ARGV kind name spec signature ('' = none)
-- Returns `new`, `again`, `same` (it runs or is finished) or `conflict` (the id belongs to another job).
local function sign(command)
  if ARGV[4] ~= '' then redis.call(command, JOB, 'signature', ARGV[4]) end
end

local found = redis.call('HMGET', JOB, 'kind', 'spec', 'state')
if not found[1] then
  redis.call('DEL', UNITS, LOG, TASKS, POINTS)
  redis.call('HSET', JOB, 'kind', ARGV[1], 'name', ARGV[2], 'spec', ARGV[3], 'state', 'submitted', 'created_s', now_s())
  sign('HSET')
  return 'new'
end
if found[1] ~= ARGV[1] or found[2] ~= ARGV[3] then return 'conflict' end
if found[3] ~= 'failed' and found[3] ~= 'cancelled' then
  sign('HSETNX')
  return 'same'
end
sign('HSET')
redis.call('HSET', JOB, 'state', 'submitted')
redis.call('HDEL', JOB, 'error', 'cancelling', 'started_s', 'ended_s', 'num_units', 'planned_s', 'planned_done', 'remote')
redis.call('DEL', TASKS)
for _, key in ipairs({ JOB, UNITS, LOG, POINTS }) do redis.call('PERSIST', key) end
return 'again'
