#!lua flags=allow-oom
-- Slot of a user: put what requests really used in place of what was reserved, each once.
-- KEYS as in reserve.lua. ARGV, for each request: rid, tokens, submit ('' = whatever the last submit was)
-- Returns how many this call settled.
local USED, RESERVED = KEYS[1], KEYS[2]
local KEPT_DAYS, KEPT_S = 3, 259200
local settled = 0
for i = 1, #ARGV, 3 do
  local known = redis.call('HGET', RESERVED, ARGV[i])
  local day, submit = string.match(known or '', '^(%d+) .* (%d+)$')
  if day and (ARGV[i + 2] == '' or ARGV[i + 2] == submit) then
    redis.call('HDEL', RESERVED, ARGV[i])
    if tonumber(ARGV[i + 1]) > 0 then redis.call('HINCRBY', USED, day, ARGV[i + 1]) end
    redis.call('HDEL', USED, day - KEPT_DAYS)
    redis.call('EXPIRE', USED, KEPT_S)
    settled = settled + 1
  end
end
return settled
