-- Shared by the scripts of a job's slot. KEYS: job, units, log, tasks, points. TERMINAL comes with the loader.
local JOB, UNITS, LOG, TASKS, POINTS = unpack(KEYS)

local function now_s()
  local t = redis.call('TIME')
  return string.format('%d.%03d', t[1], math.floor(t[2] / 1000))
end

-- One more line of the log, which keeps the newest `most`.
local function add_line(line, most)
  redis.call('XADD', LOG, 'MAXLEN', most, '*', 'line', line)
end

-- The end of a job; it is forgotten after `ttl` seconds.
local function end_job(state, error, ttl)
  redis.call('HSET', JOB, 'state', state, 'error', error, 'ended_s', now_s(), 'cancelling', 0)
  redis.call('DEL', TASKS)
  for _, key in ipairs({ JOB, UNITS, LOG, POINTS }) do redis.call('EXPIRE', key, ttl) end
end
