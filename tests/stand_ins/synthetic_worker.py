"""A real worker over an engine without a model: it repeats the last message at a set rate.

    python -m tests.stand_ins.synthetic_worker --model echo --rate 20 --slots 8 --chunk 4

For what must be measured or tested without a model's cost: queue, journal, relay, sockets, takeovers. A token is one
code point; an engine step gives every running request `chunk` of them, `rate` times a second. A continued answer goes
on exactly where its journal ends; so does one that a request begins. A bare prompt is repeated as well. With
`--reasoning` what the message has between `<think>` and `</think>` is its reasoning, which it leaves out if asked not
to think. With `--tools hermes` (or `mistral`, `llama`) it calls the request's tools where the message is such a call;
of a conversation that ends with a tool's result it repeats the result. With `--phases 4` a quarter of the requests
steps at a time, as with four engines. With `--emitted FILE` each ended request adds a line of JSON: its id and the time
(`time.monotonic()`) of each of its steps. With `--logprobs top` it tells log probabilities, made of the code points
(`logprob_of`); with `--logprobs own` it claims to know those of its tokens alone.
"""

import argparse
import json
import math
import re
import signal
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from services.connection.connect import connect, wait_for_redis
from services.logs import configure_logging
from services.machine.signals import hearing
from services.settings import Settings, load_settings
from services.tokens.answer_format import pair
from services.tokens.answer_parser import AnswerParser, MarkedTokens
from services.tokens.call_families import FAMILIES, CallFormat
from services.wire.messages import ChatRequest, Part
from workers.answer import Answer, Calls
from workers.answer_logprobs import AnswerLogprobs
from workers.engine import Engine, EngineEvent, Logprob, ModelLimits, OnEvent, Sampling
from workers.generation import Plan, Planner
from workers.worker import Worker

SUPPORTS = frozenset({"temperature", "top_p", "top_k", "seed", "continue_final", "prompt"})


class EchoText:
    """A transcript whose tokens are code points."""

    is_over = False
    parts: Sequence[Part] = ()
    reasoning_tokens = 0

    def __init__(self) -> None:
        self.token_ids: list[int] = []

    def push(self, token_id: int) -> str:
        text = chr(token_id)
        self.token_ids.append(token_id)
        return text

    def replay(self, token_ids: Sequence[int]) -> None:
        self.token_ids.extend(token_ids)

    def slice_from(self, token_offset: int) -> tuple[tuple[int, ...], int, str]:
        ids = tuple(self.token_ids[token_offset:])
        return ids, token_offset, "".join(map(chr, ids))

    def finish(self) -> str:
        return ""


def plan(request: ChatRequest) -> Plan:
    """The prompt is the text's length, then its code points: enough to know where a continued answer stands."""
    text = [ord(character) for character in said(request)]
    asked = request.sampling
    sampling = Sampling(
        max_new_tokens=min(asked.max_new_tokens, len(text)), logprobs=asked.logprobs, top_logprobs=asked.top_logprobs
    )
    plain = Plan([len(text), *text], sampling, EchoText())
    return with_text(plain, stop=asked.stop) if asked.logprobs else plain


def said(request: ChatRequest) -> str:
    """The last question, or the bare prompt; of an answer that the request begins with its own text the rest."""
    if request.prompt:
        return request.prompt
    question = next((message.content for message in reversed(request.messages) if message.role in ("user", "tool")), "")
    if request.thinking is False:
        question = re.sub(r"<think>.*?</think>\s*", "", question, flags=re.DOTALL)
    return question.removeprefix(request.messages[-1].content) if request.continue_final else question


class CodePoints:
    """The decoder of a tokenizer whose tokens are code points."""

    skipped: frozenset[int] = frozenset()

    def stream(self) -> "CodePoints":
        return self

    def bytes_of(self, token_id: int) -> bytes:
        return chr(token_id).encode()

    def token_to_id(self, token: str) -> None:
        """No mark is a token."""

    def push(self, token_id: int) -> str:
        return chr(token_id)

    def flush(self) -> str:
        return ""


def speaking_plan(request: ChatRequest, *, reasons: bool, calls: CallFormat | None) -> Plan:
    """The same, with the text of a model that reasons or calls tools."""
    marks: Any = CodePoints()
    parser = AnswerParser(MarkedTokens(pair("<think>", "</think>"), marks), "begin") if reasons else None
    called = calls_of(request, calls) if calls and request.tools else None
    return with_text(plan(request), stop=request.sampling.stop, parser=parser, calls=called)


def with_text(
    plan: Plan, *, stop: Sequence[str] = (), parser: AnswerParser | None = None, calls: Calls | None = None
) -> Plan:
    """The plan with the text that real workers make, and its log probabilities where they are asked for."""
    decoder: Any = CodePoints()
    logprobs = AnswerLogprobs(decoder) if plan.sampling.logprobs else None
    answer = Answer(decoder, stop, parser, calls=calls, logprobs=logprobs)
    return replace(plan, answer=answer, logprobs=logprobs)


def calls_of(request: ChatRequest, calls: CallFormat) -> Calls:
    name = request.tool_choice.removeprefix(":").replace("required", "")
    begun = calls.beginning(name) if request.must_call else ""
    return Calls(calls.parser(request.tools, parallel=not request.calls_once), begun=begun)


def call_format(family: str) -> CallFormat:
    """As real templates of the family have it."""
    found = next(each for each in FAMILIES if each.name == family)
    start = {"hermes": "<tool_call>\n", "mistral": "[TOOL_CALLS][", "llama": ""}[family] + '{"name": "'
    arguments = "parameters" if family == "llama" else "arguments"
    return CallFormat(found, start, f'{start}NAME", "{arguments}": ', "NAME")


def logprob_of(token_id: int, num_top: int) -> Logprob:
    """A made one: the token has half of the probability or more, its followers in Unicode half of the rest each."""
    likely = 0.5 + token_id % 5 / 10
    others = [((token_id + at) % 0xD800, math.log((1 - likely) / 2**at)) for at in range(1, num_top)]
    return math.log(likely), tuple([(token_id, math.log(likely)), *others][:num_top])


@dataclass
class Job:
    """One running request: what is left is `text[position:end]`."""

    text: list[int]
    position: int
    end: int
    on_event: OnEvent
    phase: int
    top_logprobs: int | None  # None: no log probabilities are asked for
    emitted: list[float] = field(default_factory=list)


class EchoEngine:
    """Emits for all running requests of a phase in one step, like a batching engine."""

    name = "echo"
    description = "echo engine: repeats the last message"

    def __init__(self, *, rate: float, chunk: int, slots: int, phases: int = 1, emitted: Path | None = None) -> None:
        self.limits = ModelLimits(0x110000, 1_000_000, slots, frozenset({"temperature", "top_p", "top_k", "seed"}))
        self._period_s = 1 / rate / phases
        self._chunk = chunk
        self._phases = phases
        self._emitted = emitted.open("a") if emitted else None
        self._jobs: dict[str, Job] = {}
        self._num_submitted = 0
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._progress = time.monotonic()
        self._thread = threading.Thread(target=self._run, name="echo-engine", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()
        if self._emitted:
            self._emitted.close()

    def alive(self) -> bool:
        return not self._stop.is_set()

    def progress(self) -> float:
        return self._progress

    def submit(self, request_id: str, prompt_token_ids: Sequence[int], sampling: Sampling, on_event: OnEvent) -> None:
        length = prompt_token_ids[0]
        text = list(prompt_token_ids[1 : length + 1])
        position = len(prompt_token_ids) - 1 - length
        with self._lock:
            phase = self._num_submitted % self._phases
            end, asked = position + sampling.max_new_tokens, sampling.top_logprobs if sampling.logprobs else None
            self._jobs[request_id] = Job(text, position, end, on_event, phase, asked)
            self._num_submitted += 1

    def cancel(self, request_id: str) -> None:
        with self._lock:
            job = self._jobs.pop(request_id, None)
        if job is not None:
            job.on_event(EngineEvent(request_id, (), "cancelled"))

    def _run(self) -> None:
        next_step, step = time.monotonic(), 0
        while not self._stop.wait(max(0.0, next_step - time.monotonic())):
            next_step += self._period_s
            step += 1
            self._progress = time.monotonic()
            with self._lock:
                for request_id, job in list(self._jobs.items()):
                    if job.phase == step % self._phases:
                        self._advance(request_id, job)

    def _advance(self, request_id: str, job: Job) -> None:
        token_ids = tuple(job.text[job.position : min(job.position + self._chunk, job.end)])
        job.position += len(token_ids)
        job.emitted.append(time.monotonic())
        num_top = job.top_logprobs
        logprobs = () if num_top is None else tuple(logprob_of(each, num_top) for each in token_ids)
        if job.position < job.end:
            job.on_event(EngineEvent(request_id, token_ids, logprobs=logprobs))
            return
        del self._jobs[request_id]
        reason = "stop" if job.end == len(job.text) else "length"
        job.on_event(EngineEvent(request_id, token_ids, "finished", reason, logprobs=logprobs))
        if self._emitted:
            self._emitted.write(json.dumps({"id": request_id.partition("#")[0], "emitted": job.emitted}) + "\n")
            self._emitted.flush()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="echo", help="name under which it is served")
    parser.add_argument("--rate", type=float, default=20, help="engine steps per second")
    parser.add_argument("--chunk", type=int, default=4, help="code points per request and step")
    parser.add_argument("--reasoning", action="store_true", help="what stands in <think> tags is reasoning")
    parser.add_argument("--forms", action="store_true", help="claim to keep forms; it repeats what is in one already")
    parser.add_argument("--tools", choices=[each.name for each in FAMILIES], help="how the model calls tools")
    parser.add_argument("--logprobs", choices=["own", "top"], help="which log probabilities it tells")
    parser.add_argument("--slots", type=int, default=8, help="requests that run at once")
    parser.add_argument("--phases", type=int, default=1, help="groups of requests that step one after the other")
    parser.add_argument("--emitted", type=Path, help="where to write when each token of each request was emitted")
    options = parser.parse_args()
    settings = load_settings()
    configure_logging(settings.log_format, settings.log_level, process="worker")
    engine = EchoEngine(
        rate=options.rate,
        chunk=options.chunk,
        slots=options.slots,
        phases=options.phases,
        emitted=options.emitted,
    )
    able = {"thinking": options.reasoning, "tools": options.tools, "response_format": options.forms}
    able["strict_tools"] = options.tools and options.forms
    able |= {"logprobs": options.logprobs, "top_logprobs": options.logprobs == "top"}
    supports = SUPPORTS | {name for name, is_able in able.items() if is_able}
    if options.reasoning or options.tools:
        calls = call_format(options.tools) if options.tools else None
        planner = partial(speaking_plan, reasons=options.reasoning, calls=calls)
        serve(settings, options.model, engine, planner, supports)
    else:
        serve(settings, options.model, engine, plan, supports)


def serve(
    settings: Settings, model: str, engine: Engine, planner: Planner, supports: frozenset[str] = frozenset()
) -> None:
    """A worker over an engine of ours, until SIGTERM."""
    engine.start()
    redis = connect(settings.redis_url, role="worker")
    wait_for_redis(redis, print)
    worker = Worker.from_settings(settings, redis, model, engine, planner, supports=supports)
    with hearing((signal.SIGTERM, signal.SIGINT), lambda number: worker.stop()):
        worker.run()
    engine.stop()


if __name__ == "__main__":
    main()
