-- How full the memory of Redis is, for the scripts that must know.

-- Percent of `maxmemory` in use; 0 where there is no limit.
local function percent_of_memory()
  local info = redis.pcall('INFO', 'memory')
  if type(info) ~= 'string' then return 0 end -- a user who may not ask
  local most = tonumber(string.match(info, 'maxmemory:(%d+)'))
  if not most or most == 0 then return 0 end
  return math.floor(100 * tonumber(string.match(info, 'used_memory:(%d+)')) / most)
end
