"""A training program that trains nothing and keeps the contract of the real one: events, checkpoints, exit codes.

    python tests/pipelines/launching/stand_in.py --config FILE --data FILE --out DIR

Files in `DIR/control` steer it: it does one step more than stands in `upto` (all, if there is none), saves every second
step, and at the step that stands in `at` does what stands in `do`: an exit code, `crash`, `crash once`, `print TEXT`.
"""

import argparse
import json
import os
import signal
import sys
import time
from pathlib import Path

from services.jobs.training import STOPPED_EXIT, event_line, read_training

SAVE_STEPS = 2


def main() -> int:
    parser = argparse.ArgumentParser()
    for name in ("--config", "--data", "--out"):
        parser.add_argument(name, required=True)
    given = parser.parse_args()
    out = Path(given.out)
    num_steps = read_training(given.config).max_steps
    stopped: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, frame: stopped.append(number))
    with (out / "starts").open("a") as file:
        file.write(f"{os.getpid()}\n")
    if (out / "model" / "manifest.json").exists():
        say_finished(out, num_steps)
        return 0
    begun = newest(out)
    say("plan", steps=num_steps, examples=4)
    if begun:
        say("resumed", step=begun)
    for step in range(begun + 1, num_steps + 1):
        while not stopped and step > allowed(out):
            time.sleep(0.01)
        if stopped:
            save(out, step - 1)
            print(f"stopped after step {step - 1}", flush=True)
            return STOPPED_EXIT
        if (out / "control" / "at").exists() and step == int((out / "control" / "at").read_text()):
            misbehave(out / "control")
        print(f"step {step} is done", flush=True)
        say("step", step=step, of=num_steps, loss=1 / step, lr=1e-5, tokens_per_s=100.0, eta_s=1.0)
        if step % SAVE_STEPS == 0:
            save(out, step)
    model = out / "model"
    model.mkdir(exist_ok=True)
    about = {"base": "tiny", "metrics": {"steps": num_steps, "loss": 0.1}, "files": {}}
    (model / "manifest.json").write_text(json.dumps(about))
    say_finished(out, num_steps)
    return 0


def say(event: str, **fields: object) -> None:
    print(event_line(event, **fields), flush=True)


def say_finished(out: Path, num_steps: int) -> None:
    say("finished", step=num_steps, of=num_steps, model=str(out / "model"), loss=1 / num_steps)


def allowed(out: Path) -> int:
    path = out / "control" / "upto"
    return int(path.read_text() or 0) if path.exists() else sys.maxsize


def misbehave(folder: Path) -> None:
    how = (folder / "do").read_text()
    if how == "crash once":
        (folder / "at").unlink()
    if how.startswith("crash"):
        raise RuntimeError("the stand-in crashed")
    if how.startswith("print "):
        print(how[6:], flush=True)
        return
    say("failed", code=int(how), message="the stand-in was told to fail")
    sys.exit(int(how))


def save(out: Path, step: int) -> None:
    folder = out / "checkpoints" / f"checkpoint-{step}"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "COMPLETE.json").write_text("{}")
    say("checkpoint", step=step, bytes=2)


def newest(out: Path) -> int:
    steps = [int(path.parent.name[11:]) for path in out.glob("checkpoints/checkpoint-*/COMPLETE.json")]
    return max(steps, default=0)


if __name__ == "__main__":
    sys.exit(main())
