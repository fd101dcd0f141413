#!lua flags=allow-oom
-- Slot of a user: reserve the tokens that a request may use, once.
-- KEYS[1] used: hash, day → tokens. KEYS[2] reserved: hash, request id → `day ms prompt answer submit`.
-- A day is one of UTC, by the server's clock, as days since 1970. What is reserved counts for the day of its reservation.
-- ARGV rid, tokens of prompt and answer, submit (a number of this attempt), most tokens a day, most requests in flight (0 =
-- no limit), '1' to refuse nothing
-- Returns {OK, number in flight, ms since the oldest of them came}, {TOKENS, used, reserved, seconds until the next day,
-- when that begins, in seconds since 1970} or {IN_FLIGHT, number}.
local USED, RESERVED = KEYS[1], KEYS[2]
local rid, prompt, answer, submit = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local most_tokens, most_in_flight, forced = tonumber(ARGV[5]), tonumber(ARGV[6]), ARGV[7] == '1'
local DAY_S, KEPT_S = 86400, 259200
local time = redis.call('TIME')
local now_ms, day = time[1] * 1000 + math.floor(time[2] / 1000), math.floor(time[1] / DAY_S)

-- Tokens that are reserved for this day, and ms since the oldest reservation.
local function reservations()
  local tokens, oldest_ms = 0, now_ms
  for _, each in ipairs(redis.call('HVALS', RESERVED)) do
    local of_day, since_ms, of_prompt, of_answer = string.match(each, '^(%d+) (%d+) (%d+) (%d+)')
    if tonumber(of_day) == day then tokens = tokens + of_prompt + of_answer end
    oldest_ms = math.min(oldest_ms, tonumber(since_ms))
  end
  return tokens, now_ms - oldest_ms
end

local known = redis.call('HGET', RESERVED, rid)
if known then -- submitted again: who refuses an earlier submit must not take the reservation of this one back
  redis.call('HSET', RESERVED, rid, string.match(known, '^%d+ %d+ %d+ %d+ ') .. submit)
  return { 'OK', redis.call('HLEN', RESERVED), 0 }
end
local in_flight = redis.call('HLEN', RESERVED)
if not forced and most_in_flight > 0 and in_flight >= most_in_flight then return { 'IN_FLIGHT', in_flight } end
local reserved, waited_ms = reservations()
local used = tonumber(redis.call('HGET', USED, day) or 0)
if not forced and most_tokens > 0 and used + reserved + prompt + answer > most_tokens then
  return { 'TOKENS', used, reserved, DAY_S - time[1] % DAY_S, (day + 1) * DAY_S }
end
redis.call('HSET', RESERVED, rid, string.format('%.0f %.0f %s %s %s', day, now_ms, prompt, answer, submit))
redis.call('EXPIRE', RESERVED, KEPT_S)
return { 'OK', in_flight + 1, waited_ms }
