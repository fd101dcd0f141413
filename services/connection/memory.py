"""How full the memory of Redis is. Probes and `chatserver status` ask; the scripts of requests ask for themselves."""

import redis

from services.connection.cluster import primaries_of
from services.errors import Busy

FULL_PERCENT = 85  # then nothing new is accepted: the rest is for what was accepted before


def full_memory(percent: int) -> Busy:
    return Busy(f"the memory of Redis is {percent} % full; try again later", retry_after_s=30)


def memory_percent(client: redis.Redis) -> int:
    """Percent of `maxmemory` in use, of the fullest server of a cluster; 0 where there is no limit."""
    found = [server.info("memory") for server in primaries_of(client)]
    return max((100 * info["used_memory"] // info["maxmemory"] for info in found if info.get("maxmemory")), default=0)
