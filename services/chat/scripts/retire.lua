#!lua flags=allow-oom
-- Queue slot: remove a consumer that holds nothing. Removing one that holds entries would strand them.
-- KEYS[1] requests; ARGV worker id
-- Returns 1 when removed.
local mine = redis.pcall('XPENDING', KEYS[1], GROUP, '-', '+', 1, ARGV[1])
if mine.err or #mine > 0 then return 0 end
redis.call('XGROUP', 'DELCONSUMER', KEYS[1], GROUP, ARGV[1])
return 1
