#!lua flags=allow-oom
-- One command that writes a name. It may not be refused for want of memory: a new worker would not be seen.
-- KEYS[1] key; ARGV command, arguments…
return redis.call(ARGV[1], KEYS[1], unpack(ARGV, 2))
