#!lua flags=allow-oom
-- Queue slot: forget an entry whose request has ended. Only after finish or begin answered OK or ENDED.
-- KEYS[1] requests, KEYS[2] ids, KEYS[3] users, KEYS[4] dead; ARGV entry id, rid, user, reason ('' = not dead)
-- Returns {OK, 1 when this call removed it}.
local entry = redis.call('XRANGE', KEYS[1], ARGV[1], ARGV[1])[1]
redis.pcall('XACK', KEYS[1], 'workers', ARGV[1])
local removed = redis.call('XDEL', KEYS[1], ARGV[1])
if redis.call('HGET', KEYS[2], ARGV[2]) == ARGV[1] then redis.call('HDEL', KEYS[2], ARGV[2]) end
if removed == 1 then
  if redis.call('HINCRBY', KEYS[3], ARGV[3], -1) <= 0 then redis.call('HDEL', KEYS[3], ARGV[3]) end
  if ARGV[4] ~= '' then
    local fields = { 'reason', ARGV[4] }
    for _, value in ipairs(entry[2]) do fields[#fields + 1] = value end
    redis.call('XADD', KEYS[4], '*', unpack(fields))
  end
end
-- An empty queue cannot have counts: this heals what half a lost script left behind.
if redis.call('XLEN', KEYS[1]) == 0 then redis.call('DEL', KEYS[2], KEYS[3]) end
return { 'OK', removed }
