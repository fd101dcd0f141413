#!lua flags=no-writes
-- Request slot: how far an answer is; with ARGV[1] = '1' the whole journal behind it.
-- KEYS[1] state, KEYS[2] journal
-- Returns {status, user, model, nonce, n, toff, epoch, tries, begins, wid, code, payload, created_ms, begun_ms,
-- first_ms, ended_ms, now_ms, [event…]}, or {} when the request is unknown.
local s = redis.call('HMGET', KEYS[1], 'status', 'user', 'model', 'nonce', 'n', 'toff', 'epoch', 'tries', 'begins',
  'wid', 'code', 'payload', 'created_ms', 'begun_ms', 'first_ms', 'ended_ms')
if not s[1] then return {} end
local reply = {}
for i = 1, 16 do reply[i] = s[i] or '' end
local now = redis.call('TIME')
reply[17] = now[1] .. string.format('%03d', math.floor(now[2] / 1000))
if ARGV[1] == '1' then
  for _, entry in ipairs(redis.call('XRANGE', KEYS[2], '-', '+')) do reply[#reply + 1] = entry[2][4] end
end
return reply
