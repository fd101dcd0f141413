#!lua flags=allow-oom
-- include _job.lua
-- Job slot: forget a job that has ended.
-- Returns the state it had; nil when there is no such job. One that has not ended stays.
local state = redis.call('HGET', JOB, 'state')
if TERMINAL[state] then redis.call('DEL', unpack(KEYS)) end
return state
