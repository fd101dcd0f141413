"""A real worker over an engine that draws checkable tokens and breaks on demand.

    python -m tests.faults.worker --rate 20 --chunk 2 --slots 4

A token is a hash of the whole prefix and of this process's salt (`tests/contracts/protocol_model.py`), so a splice of
two answers shows even when the offsets fit. The last message may be an order that the engine obeys:

    poison     SIGKILL to this process when the request is submitted
    hang@K     after K tokens the engine's step never returns: the watchdog must replace it; first attempt only
    die@K      after K tokens the engine's loop is dead; first attempt only
    raise@K    after K tokens this one request ends as `failed` with `engine_error`
    oom@K      the same with `out_of_memory`

A first attempt is one that continues from no token, so K is at least 1 for `hang` and `die`. Any other text is
answered with as many tokens as `max_new_tokens` asks for.
"""

import argparse
import os
import random
import re
import signal
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass

from services.errors import EngineError, OutOfMemory
from services.logs import configure_logging
from services.settings import load_settings
from services.wire.messages import ChatRequest
from tests.contracts.protocol_model import ModelAnswer, token
from tests.stand_ins.synthetic_worker import serve
from workers.engine import EngineEvent, ModelLimits, OnEvent, Sampling
from workers.generation import Plan
from workers.watchdog import SupervisedEngine

MODEL = "faulty"
KINDS = ("answer", "poison", "hang", "die", "raise", "oom")
CODES = {"raise": EngineError.code, "oom": OutOfMemory.code}


@dataclass(frozen=True)
class Order:
    """What a request does to its engine once `at` tokens are out."""

    kind: str = "answer"
    at: int = 0

    @classmethod
    def parse(cls, text: str) -> "Order":
        """The order that a message is; any other text asks for a plain answer."""
        found = re.fullmatch(r"(poison)|(hang|die|raise|oom)@(\d+)", text)
        if found is None:
            return cls()
        return cls(found[1] or found[2], int(found[3] or 0))


def plan(request: ChatRequest) -> Plan:
    """The prompt is the order, then the request's id with its length: enough to know what is continued."""
    order = Order.parse(request.messages[-1].content)
    rid = list(request.rid.encode())
    prompt = [KINDS.index(order.kind), order.at, len(rid), *rid]
    return Plan(prompt, Sampling(request.sampling.max_new_tokens), ModelAnswer())


class Job:
    """One running request: the prefix of its next token, and how many tokens are out and to come."""

    def __init__(self, prompt: Sequence[int], left: int, on_event: OnEvent) -> None:
        self.order = Order(KINDS[prompt[0]], prompt[1])
        self.prefix = list(prompt[3:])
        self.num_out = len(self.prefix) - prompt[2]
        self.first_attempt = self.num_out == 0
        self.left = left
        self.on_event = on_event

    @property
    def due(self) -> str:
        """The fault that must happen now, if any."""
        once = self.order.kind in ("hang", "die")
        if self.order.kind == "answer" or self.num_out < self.order.at or (once and not self.first_attempt):
            return ""
        return self.order.kind

    def draw(self, count: int, salt: int) -> tuple[int, ...]:
        """The next tokens, at most up to the fault."""
        start = len(self.prefix)
        while self.left and len(self.prefix) - start < count and not self.due:
            self.prefix.append(token(self.prefix, salt))
            self.num_out += 1
            self.left -= 1
        return tuple(self.prefix[start:])


class FaultEngine:
    """Steps all its requests `rate` times a second, and obeys their orders."""

    name = "fault"
    description = "fault engine: checkable tokens, breaks on demand"

    def __init__(self, *, rate: float, chunk: int, slots: int, salt: int) -> None:
        self.limits = ModelLimits(2**40, 1_000_000, slots, frozenset())
        self._period_s = 1 / rate
        self._chunk = chunk
        self._salt = salt
        self._jobs: dict[str, Job] = {}
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._dead = False
        self._progress = time.monotonic()
        self._thread = threading.Thread(target=self._run, name="fault-engine", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()

    def alive(self) -> bool:
        return not (self._dead or self._stop.is_set())

    def progress(self) -> float:
        return self._progress

    def submit(self, request_id: str, prompt_token_ids: Sequence[int], sampling: Sampling, on_event: OnEvent) -> None:
        job = Job(prompt_token_ids, sampling.max_new_tokens, on_event)
        if job.order.kind == "poison":
            os.kill(os.getpid(), signal.SIGKILL)
        with self._lock:
            self._jobs[request_id] = job

    def cancel(self, request_id: str) -> None:
        with self._lock:
            job = self._jobs.pop(request_id, None)
        if job is not None:
            job.on_event(EngineEvent(request_id, (), "cancelled"))

    def _run(self) -> None:
        while not self._stop.wait(self._period_s) and not self._dead:
            self._progress = time.monotonic()
            with self._lock:
                jobs = list(self._jobs.items())
            for request_id, job in jobs:
                self._advance(request_id, job)

    def _advance(self, request_id: str, job: Job) -> None:
        token_ids = job.draw(self._chunk, self._salt)
        if job.due in CODES:
            self._end(job, EngineEvent(request_id, token_ids, "failed", CODES[job.due], f"as ordered: {job.order}"))
        elif job.left == 0 and not job.due:
            self._end(job, EngineEvent(request_id, token_ids, "finished", "length"))
        elif token_ids:
            job.on_event(EngineEvent(request_id, token_ids))
        if job.due == "hang":
            self._stop.wait()  # until it is abandoned
        self._dead = self._dead or job.due == "die"

    def _end(self, job: Job, event: EngineEvent) -> None:
        with self._lock:
            ended = self._jobs.pop(event.request_id, None)
        if ended is job:
            job.on_event(event)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=MODEL, help="name under which it is served")
    parser.add_argument("--rate", type=float, default=20, help="engine steps per second")
    parser.add_argument("--chunk", type=int, default=1, help="tokens per request and step")
    parser.add_argument("--slots", type=int, default=4, help="requests that run at once")
    parser.add_argument("--salt", type=int, default=random.randrange(100), help="0-99: the mark of its tokens")
    options = parser.parse_args()
    settings = load_settings()
    configure_logging(settings.log_format, settings.log_level, process="worker")

    def make_engine() -> FaultEngine:
        return FaultEngine(rate=options.rate, chunk=options.chunk, slots=options.slots, salt=options.salt)

    engine = SupervisedEngine(make_engine, stall_s=settings.stall_s, check_every_s=0.1)
    serve(settings, options.model, engine, plan)


if __name__ == "__main__":
    main()
