#!lua flags=allow-oom
-- include _request.lua
-- Request slot: forget a request that the queue refused, so that refusals cannot fill the memory.
-- Returns {OK}. One that somebody began, or that has a journal, stays.
local s = redis.call('HMGET', STATE, 'status', 'epoch')
if s[1] == 'new' and s[2] == '0' and redis.call('EXISTS', JOURNAL) == 0 then redis.call('DEL', STATE) end
return { 'OK' }
