"""`python -m tests.sky.lab`: the lab until Ctrl-C, with the variables that lead to it."""

import shlex
import signal

from tests.sky.lab.lab import Lab, unmet

if __name__ == "__main__":
    if reason := unmet():
        raise SystemExit(reason)
    lab = Lab()
    print(f"Slurm, sshd and the SkyPilot API server run in {lab.root}; Ctrl-C ends them.", flush=True)
    for name, value in {**lab.server.client, **{"SLURM_CONF": lab.slurm.environment["SLURM_CONF"]}}.items():
        print(f"export {name}={shlex.quote(value)}", flush=True)
    print(f"export TRAIN_PYTHON={lab.python} LAB_SHARED={lab.shared}", flush=True)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        signal.pause()
    except KeyboardInterrupt:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        lab.stop()
