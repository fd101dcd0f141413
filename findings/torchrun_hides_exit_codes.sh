#!/usr/bin/env bash
# torch 2.13.0, torchrun: it ends with 1 whatever the training process ended with; and after a SIGTERM it ends with 1 and a
# traceback even if every process saved its work and ended with 0. A scheduler above it that decides by exit codes
# (SkyPilot's `recover_on_exit_codes`, a batch system's requeue code) never sees one.
#
# Expected: the code of the process that failed first; 0 (or the signal's 143) for an orderly end after SIGTERM.
# Seen:     process ends with 33: torchrun ends with 1.  SIGTERM, process says "saved" and ends with 0: torchrun ends with 1
# Our code: the training program is started by a launcher of 20 lines over the same library that passes the code on.
set -euo pipefail
# shellcheck source=findings/_setup.sh
source "$(dirname "$0")/_setup.sh"
install torch==2.13.0 numpy==2.4.6
echo 'import sys; sys.exit(33)' >stop.py
cat >work.py <<'EOF'
import pathlib
import signal
import sys
import time


def save(*_):
    print("process: saved, ends with 0", flush=True)
    sys.exit(0)


signal.signal(signal.SIGTERM, save)
pathlib.Path("ready").touch()
time.sleep(300)
EOF

code=0
torchrun --standalone --nproc-per-node=1 stop.py >/dev/null 2>&1 || code=$?
echo "the process ended with 33, torchrun with $code"
torchrun --standalone --nproc-per-node=1 work.py 2>/dev/null &
launcher=$!
until [[ -e ready ]]; do sleep 0.2; done
kill -TERM "$launcher"
ended=0
wait "$launcher" || ended=$?
echo "after SIGTERM torchrun ended with $ended"
[[ $code == 1 && $ended == 1 ]] || { echo "changed: torchrun passes an exit code on" >&2; exit 1; }
