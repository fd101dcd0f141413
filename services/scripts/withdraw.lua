#!lua flags=allow-oom
-- include _queue.lua
-- Queue slot: forget a request that has ended while it waited. One that a worker owns stays: that worker forgets it.
-- ARGV rid, user, reason ('' = not dead)
-- Returns 1 when this call removed it.
local id = redis.call('HGET', IDS, ARGV[1])
if not id or not redis.call('ZSCORE', WAITING, member(id, ARGV[1])) then return 0 end
return forget(id, ARGV[1], ARGV[2], ARGV[3])
