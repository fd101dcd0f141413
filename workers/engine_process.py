"""Runs an engine adapter in its own process, behind the interface of `workers.engine`. `workers.serving` makes it.

OpenVINO GenAI holds the interpreter lock for a whole step (40 ms at 16 sequences). In the same process every system
call of the worker's threads would cost a step, and 16 requests that arrive together would wait a second for their
begin. In two processes the worker answers between steps, a native crash ends the engine alone, and the worker can kill
a hung engine.

A socket pair carries a line of JSON for each command and each event. With lines one `recv` takes all data that has
arrived, so the child's reader needs the lock once in a step, however many requests came. The child ends when its socket
closes. It leads a process group: processes that an engine starts (vLLM's) end with it, however it ends.
"""

import contextlib
import multiprocessing
import os
import signal
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from typing import Any

import orjson

from services.errors import ChatServerError, ConfigurationError, EngineError
from services.models.catalogue import ModelSource
from workers.engine import (
    ENGINE_LOST,
    Engine,
    EngineEvent,
    EngineOptions,
    Logprob,
    ModelLimits,
    OnEvent,
    Outcome,
    Sampling,
)
from workers.running import RunningRequests
from workers.select_engine import adapter_of
from workers.validation import check_submission

HEARTBEAT_S = 0.5
STOP_TIMEOUT_S = 35.0  # longer than an adapter takes to stop
SEND_TIMEOUT_S = 3
_READ_BYTES = 65_536


class EngineProcess:
    """See `workers.engine.Engine`. `engine` is its name; the child calls `configure_log`."""

    def __init__(
        self,
        source: ModelSource,
        options: EngineOptions,
        *,
        engine: str,
        configure_log: Callable[[], None] | None = None,
    ) -> None:
        self._made_of = source, options, engine
        self._configure_log = configure_log
        self._unstarted = adapter_of(engine)(source, options)  # knows name and limits without its weights
        self._limits: ModelLimits | None = None
        self.description = self._unstarted.description
        self._running = RunningRequests()
        self._line: _Line | None = None
        self._process: Any = None
        self._reader: threading.Thread | None = None
        self._alive = False
        self._progress = time.monotonic()

    @property
    def name(self) -> str:
        return self._unstarted.name

    @property
    def limits(self) -> ModelLimits:
        return self._limits or self._unstarted.limits

    def start(self) -> None:
        ours, theirs = socket.socketpair()
        context = multiprocessing.get_context("spawn")
        self._process = context.Process(
            target=_serve,
            args=(theirs, *self._made_of, self._configure_log),
            name=f"engine-{self.name}",
            daemon=True,
        )
        self._process.start()
        theirs.close()
        self._line = _Line(ours)
        messages = self._line.messages()
        kind, *fields = next(messages, ["refused", f"the process of the {self.name} engine ended while it started"])
        if kind == "refused":
            self._process.join()
            _kill_group(self._process.pid)
            self._line.close()
            raise ConfigurationError(fields[0])
        limits: Any
        self.description, limits = fields
        self._limits = ModelLimits(**{**limits, "supports": frozenset(limits["supports"])})
        self._alive, self._progress = True, time.monotonic()
        self._reader = threading.Thread(target=self._read, args=(messages,), name="engine-reader", daemon=True)
        self._reader.start()

    def stop(self) -> None:
        process, self._process = self._process, None
        if process is None or self._line is None:
            return
        self._alive = False
        if not self._line.send("stop"):
            process.kill()  # it does not even read
        process.join(STOP_TIMEOUT_S)
        if process.is_alive():
            process.kill()
            process.join()
        _kill_group(process.pid)
        if self._reader is not None:
            self._reader.join()
        self._line.close()
        self._running.end_all("cancelled", message="the engine was stopped")

    def submit(self, request_id: str, prompt_token_ids: Sequence[int], sampling: Sampling, on_event: OnEvent) -> None:
        check_submission(prompt_token_ids, sampling, self.limits, engine=self.name)
        if not self.alive() or self._line is None:
            raise EngineError(f"the {self.name} engine is not running; start it first")
        self._running.add(request_id, on_event)
        sent = self._line.send("submit", request_id, list(prompt_token_ids), asdict(sampling))
        if not (sent and self.alive()) and self._running.discard(request_id):
            raise EngineError(f"the {self.name} engine ended while this request was submitted")

    def cancel(self, request_id: str) -> None:
        if request_id in self._running and self._line is not None:
            self._line.send("cancel", request_id)

    def progress(self) -> float:
        return self._progress

    def alive(self) -> bool:
        return self._alive

    def _read(self, messages: Iterator[list[Any]]) -> None:
        """The reader thread: handles events until the child ends, for any reason."""
        for kind, *fields in messages:
            if kind == "event":
                self._progress = time.monotonic()
                self._pass_on(*fields)
            else:
                self._progress = max(self._progress, fields[0])
                self._alive = self._alive and fields[1]
        if self._alive:
            self._alive = False
            self._running.end_all("failed", reason=ENGINE_LOST, message=f"the process of the {self.name} engine ended")

    def _pass_on(
        self,
        rid: str,
        token_ids: list[int],
        outcome: Outcome | None,
        reason: str,
        message: str,
        logprobs: Sequence[Logprob] = (),
    ) -> None:
        self._running.pass_on(EngineEvent(rid, tuple(token_ids), outcome, reason, message, tuple(logprobs)))


def _kill_group(leader: int) -> None:
    """End what an engine's process has started and left behind."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(leader, signal.SIGKILL)


class _Line:
    """One end of the socket pair. Any thread may send; one reads.

    The line closes when the other end has not read for SEND_TIMEOUT_S: a hung engine must not hang its worker.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._broken = False
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", SEND_TIMEOUT_S, 0))
        self._sending = threading.Lock()

    def send(self, *message: Any) -> bool:
        """Send a message. False when the other end cannot get it."""
        line = orjson.dumps(message) + b"\n"
        with self._sending:
            if self._broken:
                return False
            try:
                self._sock.sendall(line)
            except OSError:  # half a line may be out: nothing can follow it
                self._broken = True
        return not self._broken

    def messages(self) -> Iterator[list[Any]]:
        """The messages, until the other end is gone."""
        rest = b""
        while True:
            try:
                data = self._sock.recv(_READ_BYTES)
            except OSError:
                return
            if not data:
                return
            *lines, rest = (rest + data).split(b"\n")
            yield from map(orjson.loads, lines)

    def close(self) -> None:
        self._sock.close()


# ---- in the child


def _serve(
    sock: socket.socket,
    source: ModelSource,
    options: EngineOptions,
    name: str,
    configure_log: Callable[[], None] | None,
) -> None:
    """The child's main: load the model, then obey commands until `stop` or until the parent is gone."""
    os.setpgid(0, 0)
    multiprocessing.current_process().daemon = False  # else it could not start processes
    if configure_log is not None:
        configure_log()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)  # sent to a whole terminal or container: the parent drains first
    line = _Line(sock)
    engine = adapter_of(name)(source, options)
    try:
        engine.start()
    except ChatServerError as error:
        line.send("refused", error.message)
        return
    limits = asdict(engine.limits)
    line.send("ready", engine.description, {**limits, "supports": sorted(limits["supports"])})

    def report(event: EngineEvent) -> None:
        told = (event.request_id, event.token_ids, event.outcome, event.reason, event.message)
        line.send("event", *told, *((event.logprobs,) if event.logprobs else ()))

    def heartbeat() -> None:
        while line.send("beat", engine.progress(), engine.alive()):
            time.sleep(HEARTBEAT_S)

    threading.Thread(target=heartbeat, name="heartbeat", daemon=True).start()
    for command in line.messages():
        if not _obey(engine, command, report):
            engine.stop()
            os._exit(0)  # what the libraries would still tidy up took ten seconds
    os.killpg(0, signal.SIGKILL)  # the parent is gone: nobody is left to answer to


def _obey(engine: Engine, command: list[Any], report: OnEvent) -> bool:
    """Carry out one command; False when it was the last."""
    kind, *arguments = command
    if kind == "submit":
        rid, prompt_ids, sampling = arguments
        try:
            engine.submit(rid, prompt_ids, _sampling(sampling), report)
        except ChatServerError as error:
            report(EngineEvent(rid, (), "failed", error.code, error.message))
    elif kind == "cancel":
        engine.cancel(*arguments)
    return bool(kind != "stop")


def _sampling(raw: dict[str, Any]) -> Sampling:
    """JSON has lists for tuples."""
    biases = tuple((token_id, bias) for token_id, bias in raw["logit_bias"])
    return Sampling(**{**raw, "stop_token_ids": tuple(raw["stop_token_ids"]), "logit_bias": biases})
