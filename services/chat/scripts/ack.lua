#!lua flags=allow-oom
-- include _queue.lua
-- Queue slot: forget an entry whose request has ended. Only after finish or begin answered OK or ENDED.
-- ARGV entry id, rid, user, reason ('' = not dead)
-- Returns 1 when this call removed it.
return forget(ARGV[1], ARGV[2], ARGV[3], ARGV[4])
