#!lua flags=allow-oom
-- Queue slot: entries that the group has passed but nobody holds would never be delivered again. Give them to
-- `handback`, from where any worker reclaims them.
-- KEYS[1] requests; ARGV most entries to look at
-- Returns the number of entries rescued.
local rescued = 0
if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
for _, group in ipairs(redis.call('XINFO', 'GROUPS', KEYS[1])) do
  local last
  for i = 1, #group, 2 do if group[i] == 'last-delivered-id' then last = group[i + 1] end end
  for _, entry in ipairs(redis.call('XRANGE', KEYS[1], '-', last, 'COUNT', ARGV[1])) do
    if #redis.call('XPENDING', KEYS[1], 'workers', entry[1], entry[1], 1) == 0 then
      redis.call('XCLAIM', KEYS[1], 'workers', 'handback', 0, entry[1], 'IDLE', 86400000, 'FORCE', 'JUSTID')
      rescued = rescued + 1
    end
  end
end
return rescued
