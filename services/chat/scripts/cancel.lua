#!lua flags=allow-oom
-- include _memory.lua
-- include _request.lua
-- Request slot: end a request whatever stage it is in. It writes the terminal itself, so no worker need live: `cancelled`
-- for its user, `failed` for a worker that cannot read it, and `failed` for one that nobody began in time.
-- ARGV[2..] user ttl_s status code message deadline_ms ('' = now; else only if nobody began it in that time)
-- Returns {OK, model}, {ENDED, model, status}, {EARLY}, {FORBIDDEN} or {GONE}.
local s = redis.call('HMGET', STATE, 'status', 'user', 'nonce', 'n', 'toff', 'epoch', 'model', 'created_ms')
if not s[1] then return { 'GONE' } end
if s[2] ~= ARGV[2] then return { 'FORBIDDEN' } end
local over = ended(s[1])
if over then return { 'ENDED', s[7], over } end
if ARGV[7] ~= '' and (s[6] ~= '0' or now_ms() - s[8] <= tonumber(ARGV[7])) then return { 'EARLY' } end
local _, last_epoch = last_entry()
local epoch = math.max(tonumber(s[6]), last_epoch, 1)
local status, code = ARGV[4], ARGV[5]
-- Whoever takes back what nobody began knows how it ended. Kept for a day, such requests could fill the memory.
local ttl = tonumber(ARGV[3])
if status == 'cancelled' and s[6] == '0' then ttl = math.min(ttl, KEPT_LEAST_S) end
write_terminal(epoch, status, code, terminal_event(status, s[3], s[4], s[5], code, ARGV[6]), ttl)
return { 'OK', s[7] }
