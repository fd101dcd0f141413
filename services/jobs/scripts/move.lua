#!lua flags=allow-oom
-- include _job.lua
-- Job slot: the job runs, or ends. Only a job that waits can begin to run, and only one that has not ended can end.
-- ARGV running|finished|failed|cancelled, error, ttl_s, last line of its log (may be empty), most lines
-- Returns 1 when this call moved it.
local to, state = ARGV[1], redis.call('HGET', JOB, 'state')
if not state or TERMINAL[state] then return 0 end
if to ~= 'running' then
  -- Before the end, with which whoever follows the log stops reading it.
  if ARGV[4] ~= '' then add_line(ARGV[4], ARGV[5]) end
  end_job(to, ARGV[2], ARGV[3])
elseif state == 'submitted' then
  redis.call('HSET', JOB, 'state', to, 'started_s', now_s())
else
  return 0
end
return 1
