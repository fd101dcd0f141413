#!lua flags=allow-oom
-- include _memory.lua
-- include _request.lua
-- Request slot: keep an ended answer for as long as one that ends now.
-- ARGV[2] ttl_s
local ttl = kept_for_s(tonumber(ARGV[2]))
redis.call('EXPIRE', STATE, ttl, 'GT')
redis.call('EXPIRE', JOURNAL, ttl, 'GT')
return { 'OK' }
