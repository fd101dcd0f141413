#!lua flags=allow-oom
-- include _request.lua
-- Request slot: forget a request that the queue refused, so that refusals cannot fill the memory.
-- ARGV[2] the number of the submit that was refused
-- Returns {OK}. One that somebody began, that has a journal, or that was submitted again since, stays.
local s = redis.call('HMGET', STATE, 'status', 'epoch', 'submits')
if s[1] == 'new' and s[2] == '0' and s[3] == ARGV[2] and redis.call('EXISTS', JOURNAL) == 0 then redis.call('DEL', STATE) end
return { 'OK' }
