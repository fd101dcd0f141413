-- Shared by the scripts of the request slot. KEYS[1] state, KEYS[2] journal, ARGV[1] events channel.
-- TERMINAL and VERSION come with the loader.
local STATE, JOURNAL, CHANNEL = KEYS[1], KEYS[2], ARGV[1]
local KEPT_LEAST_S = 600 -- an answer that has ended

local function now_ms()
  local t = redis.call('TIME')
  return t[1] * 1000 + math.floor(t[2] / 1000)
end

-- The state of a request that nobody has begun.
local function new_state(rid, user, model, payload)
  redis.call('HSET', STATE, 'rid', rid, 'user', user, 'model', model, 'payload', payload, 'status', 'new', 'epoch', 0,
    'nonce', '', 'n', 0, 'toff', 0, 'tries', 0, 'begins', 0, 'begin_n', 0, 'handback', 0, 'created_ms', now_ms())
end

-- Kind, epoch and JSON of the journal's last entry; nil when there is none.
local function last_entry()
  local last = redis.call('XREVRANGE', JOURNAL, '+', '-', 'COUNT', 1)[1]
  if not last then return nil, 0, nil end
  return last[2][2], tonumber(string.match(last[1], '^(%d+)-')), last[2][4]
end

local function append_entry(epoch, kind, event)
  redis.call('XADD', JOURNAL, epoch .. '-*', 'k', kind, 'e', event)
  redis.call('SPUBLISH', CHANNEL, event)
end

-- How long an ended answer is kept: `ttl` seconds while Redis has room, half as long for each HALVING percent of memory
-- in use over ROOMY, and never less than KEPT_LEAST_S. So old answers make room for new ones before the door must close.
local function kept_for_s(ttl)
  local ROOMY, HALVING = 50, 5
  local over = math.max(percent_of_memory() - ROOMY, 0)
  return math.floor(math.max(ttl / 2 ^ (over / HALVING), math.min(ttl, KEPT_LEAST_S)))
end

-- Ends the request: state first, then the one terminal entry. The payload is no longer needed. Only scripts that include
-- _memory.lua may call it.
local function write_terminal(epoch, status, code, event, ttl)
  ttl = kept_for_s(tonumber(ttl))
  redis.call('HSET', STATE, 'status', status, 'code', code, 'ended_ms', now_ms())
  redis.call('HDEL', STATE, 'payload')
  append_entry(epoch, status, event)
  redis.call('EXPIRE', STATE, ttl)
  redis.call('EXPIRE', JOURNAL, ttl)
end

-- Adds to `usage` what only this slot knows: milliseconds from acceptance to the first token and to now.
local function add_timings(usage)
  local s = redis.call('HMGET', STATE, 'created_ms', 'first_ms')
  if s[1] then
    usage.total_ms = now_ms() - tonumber(s[1])
    if s[2] then usage.first_token_ms = tonumber(s[2]) - tonumber(s[1]) end
  end
  return usage
end

-- A terminal event that no worker worded: cancelled, poison, expired.
local function terminal_event(status, nonce, n, toff, code, message)
  return cjson.encode({ v = VERSION, kind = status, nonce = nonce, off = tonumber(n), toff = tonumber(toff), text = '',
    code = code, message = message, usage = add_timings({ completion_tokens = tonumber(n) }) })
end

-- The status with which the request has ended, or nil. A journal that ended overrules a state that disagrees: half of
-- a script can be lost with the tail of the append-only file.
local function ended(status)
  if TERMINAL[status] then return status end
  local kind = last_entry()
  if kind and TERMINAL[kind] then
    redis.call('HSET', STATE, 'status', kind)
    return kind
  end
  return nil
end
