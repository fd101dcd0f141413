#!lua flags=allow-oom
-- include _job.lua
-- Job slot: the orderly end of a unit's run; it still has the unit's lock.
-- ARGV unit, 'done' | 'again' | 'rest' | 'failed', seconds until it may be sent again, why it failed
-- Returns 1, or 0 when there is nothing to note.
local unit, how, pause, why = unpack(ARGV)
if redis.call('HGET', JOB, 'state') ~= 'running' then return 0 end
for _, what in ipairs({ 'held ', 'sent ', 'starts ', 'pause ' }) do redis.call('HDEL', TASKS, what .. unit) end
if how == 'done' then
  redis.call('HDEL', TASKS, 'attempts ' .. unit)
elseif how == 'failed' then
  redis.call('HSET', TASKS, 'failed ' .. unit, why)
elseif tonumber(pause) > 0 then
  if how == 'again' then redis.call('HINCRBY', TASKS, 'attempts ' .. unit, 1) end
  redis.call('HSET', TASKS, 'pause ' .. unit, string.format('%.3f', tonumber(now_s()) + tonumber(pause)))
end
return 1
