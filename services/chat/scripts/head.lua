#!lua flags=no-writes
-- Request slot: how far an answer is; with ARGV[1] = '1' the whole journal behind it.
-- KEYS[1] state, KEYS[2] journal. FIELDS, of the state, comes with the loader.
-- Returns {now_ms, {value of each field, nil for what is not set}, {event…}}, or {} when the request is unknown.
if redis.call('HEXISTS', KEYS[1], 'status') == 0 then return {} end
local now, events = redis.call('TIME'), {}
if ARGV[1] == '1' then
  for i, entry in ipairs(redis.call('XRANGE', KEYS[2], '-', '+')) do events[i] = entry[2][4] end
end
return { now[1] .. string.format('%03d', math.floor(now[2] / 1000)), redis.call('HMGET', KEYS[1], unpack(FIELDS)), events }
