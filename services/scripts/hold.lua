#!lua flags=allow-oom
-- Queue slot: three things that only the owner of a pending entry may do, told apart by ARGV[4].
--   renew: reset its idle time.  raise: set its delivery count to ARGV[5].
--   handback: give it to nobody, keeping place, id and count, so that any worker may reclaim it at once.
-- KEYS[1] requests; ARGV entry id, owner, delivery count, action, new count
-- Returns {OK} or {NO}.
local seen = redis.pcall('XPENDING', KEYS[1], 'workers', ARGV[1], ARGV[1], 1)[1] -- no such stream: nobody owns it
if not seen or seen[2] ~= ARGV[2] or seen[4] ~= tonumber(ARGV[3]) then return { 'NO' } end
if ARGV[4] == 'renew' then
  redis.call('XCLAIM', KEYS[1], 'workers', ARGV[2], 0, ARGV[1], 'JUSTID')
elseif ARGV[4] == 'raise' then
  redis.call('XCLAIM', KEYS[1], 'workers', ARGV[2], 0, ARGV[1], 'RETRYCOUNT', ARGV[5], 'JUSTID')
else
  redis.call('XCLAIM', KEYS[1], 'workers', 'handback', 0, ARGV[1], 'IDLE', 86400000, 'JUSTID')
end
return { 'OK' }
