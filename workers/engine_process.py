"""Any engine adapter in a process of its own, behind the interface of `workers.engine`.

OpenVINO GenAI holds the interpreter lock for a whole step (40 ms at 16 sequences): beside it in one process, every
system call of the worker's own threads costs a step, and 16 questions that arrive together wait a second for their
begin. Apart, the worker answers between steps; a native crash ends one engine instead of the worker, and a hung one
can be killed.

The two ends of a pipe: commands go down as tuples, events come up as they are made. The child ends when the pipe does.
"""

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Sequence
from multiprocessing.connection import Connection
from typing import Any

from services.catalogue import ModelSource
from services.errors import ChatServerError, ConfigurationError, EngineError
from workers.engine import ENGINE_LOST, Engine, EngineEvent, ModelLimits, OnEvent, Sampling
from workers.running import RunningRequests
from workers.select_engine import create_engine
from workers.validation import check_submission

HEARTBEAT_S = 0.5
STOP_TIMEOUT_S = 35.0  # longer than an adapter takes to stop


class EngineProcess:
    """See `workers.engine.Engine`. `options` are those of `create_engine`."""

    def __init__(self, source: ModelSource, **options: Any) -> None:
        self._source = source
        self._options = options
        self._unstarted = create_engine(source, **options)[0]  # knows name and limits without its weights
        self._limits: ModelLimits | None = None
        self.description = self._unstarted.description
        self._running = RunningRequests()
        self._sending = threading.Lock()
        self._pipe: Connection | None = None
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
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(
            target=_serve, args=(theirs, self._source, self._options), name=f"engine-{self.name}", daemon=True
        )
        self._process.start()
        theirs.close()
        try:
            kind, *rest = self._pipe.recv()
        except EOFError:
            raise ConfigurationError(f"the process of the {self.name} engine ended while it loaded the model") from None
        if kind == "refused":
            self._process.join()
            raise ConfigurationError(rest[0])
        self.description, self._limits = rest
        self._alive, self._progress = True, time.monotonic()
        self._reader = threading.Thread(target=self._read, name="engine-reader", daemon=True)
        self._reader.start()

    def stop(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        self._alive = False
        self._send("stop")
        process.join(STOP_TIMEOUT_S)
        if process.is_alive():
            process.kill()
            process.join()
        if self._reader is not None:
            self._reader.join()
        if self._pipe is not None:
            self._pipe.close()
        self._running.end_all("cancelled", message="the engine was stopped")

    def submit(self, request_id: str, prompt_token_ids: Sequence[int], sampling: Sampling, on_event: OnEvent) -> None:
        check_submission(prompt_token_ids, sampling, self.limits, engine=self.name)
        if not self.alive():
            raise EngineError(f"the {self.name} engine is not running; start it first")
        self._running.add(request_id, on_event)
        if not self._send("submit", request_id, list(prompt_token_ids), sampling) and self._running.discard(request_id):
            raise EngineError(f"the {self.name} engine ended while this request was submitted")

    def cancel(self, request_id: str) -> None:
        if request_id in self._running:
            self._send("cancel", request_id)

    def progress(self) -> float:
        return self._progress

    def alive(self) -> bool:
        return self._alive

    def _send(self, *command: Any) -> bool:
        """Whether the child may still get it."""
        assert self._pipe is not None
        try:
            with self._sending:
                self._pipe.send(command)
        except OSError:
            return False
        return True

    def _read(self) -> None:
        """The reader thread: events until the child ends, whyever it does."""
        assert self._pipe is not None
        while True:
            try:
                message = self._pipe.recv()
            except (EOFError, OSError):
                break
            if isinstance(message, EngineEvent):
                self._progress = time.monotonic()
                self._pass_on(message)
            else:
                self._progress, alive = max(self._progress, message[0]), message[1]
                self._alive = self._alive and alive
        if self._alive:
            self._alive = False
            self._running.end_all("failed", reason=ENGINE_LOST, message=f"the process of the {self.name} engine ended")

    def _pass_on(self, event: EngineEvent) -> None:
        if event.outcome is None:
            self._running.tokens(event.request_id, event.token_ids)
        else:
            self._running.end(
                event.request_id, event.outcome, reason=event.reason, message=event.message, token_ids=event.token_ids
            )


# ---- in the child


def _serve(pipe: Connection, source: ModelSource, options: dict[str, Any]) -> None:
    """The child's main: load, then obey until told to stop or until the parent is gone."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)  # of a whole terminal or container: the parent drains first
    engine = create_engine(source, **options)[0]
    sending = threading.Lock()

    def send(message: Any) -> None:
        try:
            with sending:
                pipe.send(message)
        except OSError:
            os._exit(1)  # nobody is left to answer to

    try:
        engine.start()
    except ChatServerError as error:
        return send(("refused", error.message))
    send(("ready", engine.description, engine.limits))
    threading.Thread(target=_beat, args=(engine, send), name="heartbeat", daemon=True).start()
    try:
        while _obey(engine, pipe.recv(), send):
            pass
    except EOFError:
        os._exit(1)
    engine.stop()
    pipe.close()


def _beat(engine: Engine, send: Any) -> None:
    while True:
        send((engine.progress(), engine.alive()))
        time.sleep(HEARTBEAT_S)


def _obey(engine: Engine, command: tuple[Any, ...], send: Any) -> bool:
    """Carry out one command; False when it was the last."""
    kind, *arguments = command
    if kind == "submit":
        try:
            engine.submit(arguments[0], arguments[1], arguments[2], send)
        except ChatServerError as error:
            send(EngineEvent(arguments[0], (), "failed", error.code, error.message))
    elif kind == "cancel":
        engine.cancel(*arguments)
    return bool(kind != "stop")
