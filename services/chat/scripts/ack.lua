#!lua flags=allow-oom
-- include _queue.lua
-- Queue slot: forget an entry whose request has ended. Only after finish or begin answered OK or ENDED.
-- ARGV entry id, rid, user, reason ('' = not dead), tokens of prompt and answer that it used ('' = not known)
-- Returns 1 when this call removed it.
return forget(ARGV[1], ARGV[2], ARGV[3], ARGV[4], tonumber(ARGV[5]), tonumber(ARGV[6]))
