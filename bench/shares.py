"""Two users, answers of one as long as twenty of the other's: `python -m bench.shares`. How many tokens does each get?

Both always have requests waiting; a worker without a model writes at a set rate. The bench prints the tokens of answers
that each user got between the warm-up and the end, and ends with 1 if the share of one is more than 10 % from a half.
With `--before DIR`, a checkout of another build, it measures that build and this one in turns.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path

from bench.system import BenchSystem
from services.chat.requests import Requests
from services.places import ROOT
from services.wire.keys import Keys
from services.wire.messages import ChatRequest, Message, SamplingOptions

MODEL, NAMESPACE = "echo", "bench"
LOOK_S = 0.02
CLOSE = 0.1  # of a half


class Asker:
    """A user who always has so many requests in the queue."""

    def __init__(self, requests: Requests, user: str, chars: int, depth: int) -> None:
        self._requests = requests
        self._user = user
        self._text = ("the quick brown fox jumps over the lazy dog. " * (chars // 45 + 1))[:chars]
        self._depth = depth
        self._open: dict[str, int] = {}
        self.num_ended = 0
        self._ended_tokens = 0

    @property
    def tokens(self) -> int:
        """Of all answers till now."""
        return self._ended_tokens + sum(self._open.values())

    def look(self) -> None:
        """Count what was answered, and ask anew for what has ended."""
        for rid in list(self._open):
            head = self._requests.journal.head(rid)
            assert head is not None, "no answer is lost here"
            self._open[rid] = head.n
            if head.ended:
                self._ended_tokens += self._open.pop(rid)
                self.num_ended += 1
        while len(self._open) < self._depth:
            self._ask()

    def _ask(self) -> None:
        rid = uuid.uuid4().hex
        options = SamplingOptions(max_new_tokens=len(self._text))
        self._requests.submit(ChatRequest(rid, self._user, MODEL, (Message("user", self._text),), options))
        self._open[rid] = 0


def measure(options: argparse.Namespace, folder: Path) -> dict[str, float]:
    """The tokens that each user got, and the share of the user with long answers."""
    with BenchSystem(folder, appendfsync="no") as system:
        worker = ("--model", MODEL, "--rate", str(options.rate), "--chunk", "4", "--slots", str(options.slots))
        system.start_worker("tests.stand_ins.synthetic_worker", *worker)
        requests = Requests(system.redis, Keys(NAMESPACE))
        long = Asker(requests, "long", options.chars * options.ratio, options.depth)
        short = Asker(requests, "short", options.chars, options.depth)
        _watch([long, short], options.warm_up)
        before = (long.tokens, short.tokens)
        _watch([long, short], options.seconds)
        got = (long.tokens - before[0], short.tokens - before[1])
    share = got[0] / max(sum(got), 1)
    return {"long_tokens": got[0], "short_tokens": got[1], "long_share": round(share, 3), "answers": short.num_ended}


def _watch(askers: list[Asker], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        for asker in askers:
            asker.look()
        time.sleep(LOOK_S)


def measure_build(build: Path, arguments: list[str]) -> dict[str, float]:
    """The same of another checkout, by this script."""
    environment = {**os.environ, "PYTHONPATH": str(build)}
    command = [sys.executable, "-P", __file__, *arguments]
    done = subprocess.run(command, cwd=build, env=environment, stdout=subprocess.PIPE, check=False)
    return dict(json.loads(done.stdout))


def main() -> None:
    parser = argparse.ArgumentParser("python -m bench.shares", description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--warm-up", type=float, default=5, help="seconds before the counting begins")
    parser.add_argument("--chars", type=int, default=20, help="tokens of a short answer")
    parser.add_argument("--ratio", type=int, default=20, help="how many times as long the others are")
    parser.add_argument("--depth", type=int, default=16, help="requests of each user in the queue")
    parser.add_argument("--rate", type=float, default=100)
    parser.add_argument("--slots", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--before", type=Path, help="checkout of another build, measured in turns with this one")
    options = parser.parse_args()
    arguments = [f"--{name.replace('_', '-')}={value}" for name, value in vars(options).items() if name in PASSED_ON]
    is_close = True
    for _ in range(options.rounds):
        if options.before:
            print(json.dumps({"build": "before", **measure_build(options.before, arguments)}), flush=True)
            found = {"build": "this", **measure_build(ROOT, arguments)}
        else:
            with tempfile.TemporaryDirectory() as folder:
                found = {**measure(options, Path(folder))}
        print(json.dumps(found), flush=True)
        is_close = is_close and abs(float(found["long_share"]) - 0.5) <= CLOSE * 0.5
    sys.exit(0 if is_close else 1)


PASSED_ON = ("seconds", "warm_up", "chars", "ratio", "depth", "rate", "slots")

if __name__ == "__main__":
    main()
