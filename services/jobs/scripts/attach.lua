#!lua
-- include _job.lua
-- Job slot: where a fine-tuning runs, as its target calls it.
-- ARGV JSON, signature ('' = none)
-- Returns 1, or 0 when the job has ended or is gone.
local state = redis.call('HGET', JOB, 'state')
if not state or TERMINAL[state] then return 0 end
redis.call('HSET', JOB, 'remote', ARGV[1], 'remote_signature', ARGV[2])
return 1
