#!lua flags=allow-oom
-- include _memory.lua
-- include _request.lua
-- Request slot: a worker becomes the owner of an answer. From here on every write of a former owner is refused.
-- ARGV[2..] epoch nonce wid rid user model payload max_tries max_begins ttl_s deadline_ms
-- Returns {OK, n, toff, tries, payload, event…}, {ENDED, status, code}, {STALE, epoch} or {FOREIGN}.
local epoch, nonce, wid, rid, user, model, payload = tonumber(ARGV[2]), unpack(ARGV, 3, 8)
local max_tries, max_begins, ttl, deadline_ms = tonumber(ARGV[9]), tonumber(ARGV[10]), ARGV[11], tonumber(ARGV[12])

if redis.call('EXISTS', STATE) == 0 then
  redis.call('DEL', JOURNAL) -- what an expired or lost request left
  new_state(rid, user, model, payload)
end
local s = redis.call('HMGET', STATE, 'user', 'model', 'status', 'epoch', 'nonce', 'n', 'toff', 'tries', 'begins',
  'begin_n', 'handback', 'created_ms', 'payload')
if s[1] ~= user or s[2] ~= model then return { 'FOREIGN' } end
local over = ended(s[3])
if over then return { 'ENDED', over, redis.call('HGET', STATE, 'code') or '' } end

local _, last_epoch = last_entry()
local current = math.max(tonumber(s[4]), last_epoch)
local again = epoch == current and nonce == s[5]
if not again and epoch <= current then return { 'STALE', current } end

local n, toff, tries = tonumber(s[6]), tonumber(s[7]), tonumber(s[8])
if not again then
  local begins = tonumber(s[9]) + 1
  if n > tonumber(s[10]) then
    tries = 1 -- the last owner made progress
  elseif s[11] ~= '1' then
    tries = tries + 1 -- it did not hand the request back either
  end
  redis.call('HSET', STATE, 'epoch', epoch, 'nonce', nonce, 'wid', wid, 'status', 'running', 'tries', tries, 'begins',
    begins, 'begin_n', n, 'handback', 0)
  redis.call('HSETNX', STATE, 'begun_ms', now_ms())
  if tries > max_tries or begins > max_begins then
    local why = 'given up after ' .. (begins - 1) .. ' attempts, ' .. (tries - 1) .. ' in a row without a token'
    write_terminal(epoch, 'failed', 'poison', terminal_event('failed', nonce, n, toff, 'poison', why), ttl)
    return { 'ENDED', 'failed', 'poison' }
  end
  if begins == 1 and now_ms() - tonumber(s[12]) > deadline_ms then
    local why = 'no worker had room for it in ' .. math.floor(deadline_ms / 1000) .. ' s'
    write_terminal(epoch, 'failed', 'expired', terminal_event('failed', nonce, n, toff, 'expired', why), ttl)
    return { 'ENDED', 'failed', 'expired' }
  end
  local marker = cjson.encode({ v = VERSION, kind = 'begin', nonce = nonce, off = n, toff = toff })
  redis.call('XADD', JOURNAL, epoch .. '-0', 'k', 'begin', 'e', marker)
  redis.call('SPUBLISH', CHANNEL, marker)
end
redis.call('EXPIRE', STATE, ttl)
redis.call('EXPIRE', JOURNAL, ttl)
local reply = { 'OK', n, toff, tries, s[13] or payload }
for _, entry in ipairs(redis.call('XRANGE', JOURNAL, '-', '+')) do reply[#reply + 1] = entry[2][4] end
return reply
