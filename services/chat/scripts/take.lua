#!lua flags=allow-oom
-- include _queue.lua
-- Queue slot: become the owner of whoever is first in line.
-- While interactive and batch requests wait, every eighth one taken is a batch one.
-- ARGV worker id, '1' when it may have a request that killed its last worker before a token
-- Returns {delivery count, place, entry, now in ms}, or {} when nobody waits.
local wid, least = ARGV[1], ARGV[2] == '1' and SUSPECT or RETRY
local BATCH_EVERY, PACE_DECAY, PACE_TTL_S, MANY_USERS = 8, 0.95, 3600, 1000
local GAP_OF_MEAN, GAP_MS, FIRST_GAP_MS = 4, 1000, 10000 -- the longest time between two takes that counts whole

local function first_from(place)
  local found = redis.call('ZRANGEBYSCORE', WAITING, place, '+inf', 'WITHSCORES', 'LIMIT', 0, 1)
  return found[1], tonumber(found[2])
end

local function next_in_line()
  local name, place = first_from(least)
  if not name or place < 0 or place >= BATCH then return name, place end
  local batch_name, batch_place = first_from(BATCH)
  if batch_name and redis.call('HINCRBY', TURNS, '#run', 1) >= BATCH_EVERY then
    redis.call('HDEL', TURNS, '#run')
    return batch_name, batch_place
  end
  return name, place
end

-- A user whose last turn is over begins like a newcomer: nothing need be known of it.
local function forget_turns_before(turn, class)
  if redis.call('HLEN', TURNS) < MANY_USERS then return end
  local turns = redis.call('HGETALL', TURNS)
  for i = 1, #turns, 2 do
    if string.find(turns[i], class .. ' ', 1, true) == 1 and tonumber(turns[i + 1]) < turn then
      redis.call('HDEL', TURNS, turns[i])
    end
  end
end

-- From now on newcomers begin with this turn.
local function serve_turn(place)
  if place < 0 then return end
  local class, turn = 'interactive', place
  if place >= BATCH then class, turn = 'batch', place - BATCH end
  if turn > served_in(class) then
    redis.call('HSET', TURNS, '#' .. class, turn)
    forget_turns_before(turn, class)
  end
end

-- How fast the line moves: a decaying mean of the time between two takes while somebody was waiting all along.
local function keep_pace()
  local now = now_ms()
  local p = redis.call('HMGET', PACE, 'served', 'span_ms', 'since_ms')
  if p[3] then
    local served, span = tonumber(p[1] or 0), tonumber(p[2] or 0)
    -- Workers that were away for an hour say nothing of how fast they are.
    local longest = served > 0 and GAP_OF_MEAN * span / served + GAP_MS or FIRST_GAP_MS
    redis.call('HSET', PACE, 'served', served * PACE_DECAY + 1,
      'span_ms', span * PACE_DECAY + math.min(math.max(now - p[3], 0), longest))
  end
  if redis.call('EXISTS', WAITING) == 1 then
    redis.call('HSET', PACE, 'since_ms', now)
  else
    redis.call('HDEL', PACE, 'since_ms')
  end
  redis.call('EXPIRE', PACE, PACE_TTL_S)
end

while true do
  local name, place = next_in_line()
  if not name then return {} end
  redis.call('ZREM', WAITING, name)
  local id = string.match(name, '^%S+')
  local entry, held = redis.call('XRANGE', REQUESTS, id, id)[1], holder(id)
  if entry and not (held and held[2] ~= HANDBACK) then -- else half a lost script left its name in the line
    local count = held and held[4] + 1 or 1
    redis.pcall('XGROUP', 'CREATE', REQUESTS, GROUP, '0')
    redis.call('XCLAIM', REQUESTS, GROUP, wid, 0, id, 'RETRYCOUNT', count, 'FORCE', 'JUSTID')
    serve_turn(place)
    keep_pace()
    return { count, string.format('%.17g', place), entry, now_ms() }
  end
end
