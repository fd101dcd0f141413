-- Shared by the scripts of the queue slot. KEYS: requests, waiting, turns, pace, ids, users, bytes, dead (a script that
-- needs fewer is given the first ones). GROUP, HANDBACK and VERSION come with the loader.
local REQUESTS, WAITING, TURNS, PACE, IDS, USERS, BYTES, DEAD = unpack(KEYS)
-- Places in line, in tokens. Requests that ran before are first, then interactive ones, then batch ones.
-- An empty queue begins at 0 again, so no interactive one gets as far as BATCH.
local SUSPECT, RETRY, BATCH = -2, -1, 1e12
-- The oldest dead letters go: each has had its end, and payloads must not fill the memory.
local MOST_DEAD, MOST_DEAD_BYTES = 1000, 33554432
local ADDRESS_SHARE = 1 / 8 -- of its cost, for each request of an internet address
local ALL = '#all' -- the field of BYTES beside those of users

local function now_ms()
  local t = redis.call('TIME')
  return t[1] * 1000 + math.floor(t[2] / 1000)
end

-- An entry's name in the line; of two with the same place the older is first, to the millisecond.
local function member(id, rid, user) return id .. ' ' .. rid .. ' ' .. user end

-- Who holds an entry: {id, owner, idle ms, delivery count}; nil when nobody does, or the stream is gone.
local function holder(id) return redis.pcall('XPENDING', REQUESTS, GROUP, id, id, 1)[1] end

-- An entry's payload never moves: whoever waits is claimed by `handback` at most, and stands in the line.
local function stand_in_line(id, rid, user, place, control, model)
  if redis.call('EXISTS', WAITING) == 0 then redis.call('HDEL', PACE, 'since_ms') end -- nobody has waited till now
  redis.call('ZADD', WAITING, place, member(id, rid, user))
  redis.call('PUBLISH', control, 'queued ' .. model) -- saves a worker its next look; nothing depends on it
end

local function by_name(flat)
  local fields = {}
  for i = 1, #flat, 2 do fields[flat[i]] = flat[i + 1] end
  return fields
end

-- The name under which an address is counted, and takes turns: no user has such a name.
local function of_address(address) return '@' .. address end

local function count(key, field, by)
  if redis.call('HINCRBY', key, field, by) <= 0 then redis.call('HDEL', key, field) end
end

-- Counts an entry in, or out with sign -1: for its user, for its address and for all.
local function count_entry(user, address, size, sign)
  count(USERS, user, sign)
  if address ~= '' then count(USERS, of_address(address), sign) end
  count(BYTES, user, sign * size)
  count(BYTES, ALL, sign * size)
end

-- What tokens cost their user in line: a user of weight 2 pays half. Whole numbers, since older builds count with them.
local function cost_of(tokens, weight) return math.ceil(tokens / (tonumber(weight) or 1)) end

local function served_in(class) return tonumber(redis.call('HGET', TURNS, '#' .. class) or 0) end

local function pay_share(class, address, cost)
  local field = class .. ' ' .. of_address(address)
  local of_all = redis.call('HGET', TURNS, field)
  if of_all then redis.call('HSET', TURNS, field, string.format('%.3f', of_all + cost * ADDRESS_SHARE)) end
end

-- Moves the requests of a user that stand in line behind a place, and where the user's next one will stand. None of them
-- moves before the place `least`, and what would be moved further is forgotten.
local function move(class, user, by, behind, least)
  local last = class == 'batch' and '+inf' or '(' .. BATCH
  local suffix, mine = ' ' .. user, {} -- a pattern for the end takes several times as long
  if redis.call('HEXISTS', USERS, user) == 1 then
    local behind_it = '(' .. string.format('%.17g', behind)
    for _, name in ipairs(redis.call('ZRANGEBYSCORE', WAITING, behind_it, last)) do
      if string.sub(name, -#suffix) == suffix then mine[#mine + 1] = name end
    end
  end
  if by < 0 and mine[1] then by = math.min(0, math.max(by, least - redis.call('ZSCORE', WAITING, mine[1]))) end
  for _, name in ipairs(mine) do redis.call('ZINCRBY', WAITING, by, name) end
  local field = class .. ' ' .. user
  if redis.call('HEXISTS', TURNS, field) == 1 then redis.call('HINCRBY', TURNS, field, by) end
end

-- The tokens that a user's answers have on the average; a name of its own, which no user has.
local function of_answers(class, user) return class .. ' ~' .. user end

local function learn(class, user, answer)
  local NEWEST = 0.3
  local field = of_answers(class, user)
  local mean = redis.call('HGET', TURNS, field) or answer
  redis.call('HSET', TURNS, field, math.ceil(mean + NEWEST * (answer - mean)))
end

-- Charges what a request really used in place of what was expected. What a user was charged too much brings the user's
-- waiting requests forward, but none before whoever waits already: it stays behind the place that is served now.
local function settle(fields, user, prompt, answer)
  if tonumber(fields.base or 0) ~= 0 then return end -- it was charged when it came first
  local class = fields.priority == 'batch' and 'batch' or 'interactive'
  local more = cost_of(prompt + answer, fields.weight) - (tonumber(fields.charge) or 1) -- older builds charge 1
  if fields.address then pay_share(class, fields.address, more) end
  local from = class == 'batch' and BATCH or 0
  move(class, user, more, from - 0.5, from + served_in(class) + 1)
  learn(class, user, answer)
end

local function add_dead(entry, reason)
  redis.call('XADD', DEAD, 'MAXLEN', '~', MOST_DEAD, '*', 'reason', reason, unpack(entry[2]))
  while redis.call('XLEN', DEAD) > 1 and redis.call('MEMORY', 'USAGE', DEAD, 'SAMPLES', 0) > MOST_DEAD_BYTES do
    redis.call('XTRIM', DEAD, 'MAXLEN', redis.call('XLEN', DEAD) - 1)
  end
end

-- Forgets an entry whose request has ended; a reason files it under the dead letters. `prompt` and `answer` are the
-- tokens that it used; without them its user is charged what was expected. 1 when this call removed it.
local function forget(id, rid, user, reason, prompt, answer)
  local entry = redis.call('XRANGE', REQUESTS, id, id)[1]
  redis.pcall('XACK', REQUESTS, GROUP, id)
  redis.call('ZREM', WAITING, member(id, rid, user))
  local removed = redis.call('XDEL', REQUESTS, id)
  if redis.call('HGET', IDS, rid) == id then redis.call('HDEL', IDS, rid) end
  if removed == 1 then
    local fields = by_name(entry[2])
    count_entry(user, fields.address or '', #(fields.payload or ''), -1)
    if reason ~= '' then add_dead(entry, reason) end
    if prompt then settle(fields, user, prompt, answer) end
  end
  -- An empty queue cannot have counts: this heals what half a lost script left behind.
  if redis.call('XLEN', REQUESTS) == 0 then redis.call('DEL', IDS, USERS, WAITING, TURNS, BYTES) end
  return removed
end
