#!lua flags=allow-oom
-- Queue slot: take over an entry from an owner that is gone, if nobody was faster.
-- KEYS[1] requests; ARGV entry id, owner seen, delivery count seen, new owner
-- Returns {OK, count, entry} or {NO}.
local seen = redis.pcall('XPENDING', KEYS[1], 'workers', ARGV[1], ARGV[1], 1)[1] -- no such stream: nothing to take
if not seen or seen[2] ~= ARGV[2] or seen[4] ~= tonumber(ARGV[3]) then return { 'NO' } end
local claimed = redis.call('XCLAIM', KEYS[1], 'workers', ARGV[4], 0, ARGV[1])
if not claimed[1] then return { 'NO' } end
return { 'OK', seen[4] + 1, claimed[1] }
