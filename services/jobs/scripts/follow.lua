#!lua
-- include _job.lua
-- Job slot: what a fine-tuning told between two cursors, all of it and only once, however many read it.
-- ARGV the cursor it was read from, the cursor after it, unit, note, most lines, number of lines, lines…, (step, point)…
-- Returns 1, or 0 when another had read it, or the job has ended or is gone.
local found = redis.call('HMGET', JOB, 'state', 'cursor')
if not found[1] or TERMINAL[found[1]] or (found[2] or '') ~= ARGV[1] then return 0 end
redis.call('HSET', JOB, 'cursor', ARGV[2])
redis.call('HSET', UNITS, ARGV[3], ARGV[4])
local first, num_lines = 7, tonumber(ARGV[6])
for at = first, first + num_lines - 1 do redis.call('XADD', LOG, 'MAXLEN', ARGV[5], '*', 'line', ARGV[at]) end
for at = first + num_lines, #ARGV, 2 do redis.call('HSET', POINTS, ARGV[at], ARGV[at + 1]) end
return 1
