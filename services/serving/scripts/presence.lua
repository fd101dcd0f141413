#!lua flags=allow-oom
-- A worker's presence. It may not be refused for want of memory: that would look like a death.
-- KEYS[1] worker; ARGV ttl_s, field, value, field, value…
redis.call('HSET', KEYS[1], unpack(ARGV, 2))
redis.call('EXPIRE', KEYS[1], ARGV[1])
return { 'OK' }
