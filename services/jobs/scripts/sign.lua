#!lua flags=allow-oom
-- include _job.lua
-- Job slot: the signature of a job that has none.
-- ARGV signature
-- Returns 1, or 0 when it has one or is gone.
if redis.call('EXISTS', JOB) == 0 then return 0 end
return redis.call('HSETNX', JOB, 'signature', ARGV[1])
