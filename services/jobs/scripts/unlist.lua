#!lua flags=allow-oom
-- Slot of an owner: take off the list what is not there. What was listed once more since, or lately, stays.
-- KEYS the owner's jobs of a kind
-- ARGV seconds that a job must have been listed for, then job id and time of each as they were read
local t = redis.call('TIME')
local latest = tonumber(t[1]) + tonumber(t[2]) / 1000000 - tonumber(ARGV[1])
for i = 2, #ARGV, 2 do
  local listed = tonumber(redis.call('ZSCORE', KEYS[1], ARGV[i]))
  if listed == tonumber(ARGV[i + 1]) and listed <= latest then redis.call('ZREM', KEYS[1], ARGV[i]) end
end
return true
