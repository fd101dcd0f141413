#!lua flags=allow-oom
-- Who loads a wanted model: takes the claim when it is free, keeps it when it is one's own, or gives it back.
-- KEYS[1] claim; ARGV token, ttl_s (0 = give it back)
-- Returns 1, or 0 when another has it.
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then return 0 end
if tonumber(ARGV[2]) > 0 then
  redis.call('SET', KEYS[1], ARGV[1], 'EX', ARGV[2])
elseif holder then
  redis.call('DEL', KEYS[1])
end
return 1
