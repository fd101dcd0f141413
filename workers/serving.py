"""Serves a model from its source until the worker is asked to stop. `__main__` and `standby` call it."""

import contextlib
import logging
import signal
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Protocol

from redis import Redis
from redis.exceptions import RedisError

from services.connection.connect import wait_for_redis
from services.logs import configure_logging
from services.machine.signals import hearing
from services.models.catalogue import ModelSource
from services.models.sampling_defaults import sampling_defaults
from services.serving.registry import Registry
from services.settings import Settings
from services.tokens.tokenization import ChatTokenizer, load_tokenizer
from services.wire.messages import SamplingDefaults
from workers.engine import Engine, EngineOptions
from workers.engine_process import EngineProcess
from workers.generation import Planner
from workers.planner import ChatPlanner
from workers.select_engine import choose_engine
from workers.watchdog import SupervisedEngine
from workers.worker import ANNOUNCE_S, Worker

log = logging.getLogger("chatserver.worker")


class Stoppable(Protocol):
    def stop(self) -> None: ...


class Stop:
    """A request to stop, from a signal or a thread. It stops the worker that runs now, or that will run."""

    def __init__(self) -> None:
        self.asked = threading.Event()
        self._running: Stoppable | None = None

    def stop(self) -> None:
        self.asked.set()
        if self._running is not None:
            self._running.stop()

    def pass_on(self, running: Stoppable) -> None:
        self._running = running
        if self.asked.is_set():
            running.stop()

    def on_signals(self) -> AbstractContextManager[None]:
        """SIGTERM and SIGINT stop it while the context lasts."""
        return hearing((signal.SIGTERM, signal.SIGINT), lambda number: self.stop())


@contextlib.contextmanager
def loading(registry: Registry, model: str) -> Iterator[None]:
    """Says that a worker loads the model while the context lasts. A name that cannot be loaded is forgotten."""
    loaded, is_new = threading.Event(), False

    def renew() -> None:
        nonlocal is_new
        while True:
            try:
                is_new = registry.announce_loading(model) or is_new
            except RedisError as error:
                log.debug("loading is not announced: %s", error)
            if loaded.wait(ANNOUNCE_S):
                return

    thread = threading.Thread(target=renew, name="loading", daemon=True)
    thread.start()
    try:
        yield
    except BaseException:
        loaded.set()
        thread.join()
        with contextlib.suppress(RedisError):  # then people are offered a model that nobody serves
            registry.forget_loading(model, name_too=is_new)
        raise
    loaded.set()
    thread.join()


@dataclass(frozen=True)
class LoadedModel:
    """A started engine, its planner, how answers are sampled where a request leaves an option open, and what a request
    may carry: names of `services.serving.registry.ModelInfo.supports`. The engine stops `gone` when the file that it
    reads is gone: loaded anew, the model may get another engine."""

    engine: Engine
    planner: Planner
    sampling: SamplingDefaults = field(default_factory=SamplingDefaults)
    supports: frozenset[str] = frozenset()
    gone: Stop = field(default_factory=Stop)


def load(settings: Settings, source: ModelSource) -> LoadedModel:
    """The caller must stop the engine. Raises ConfigurationError."""
    tokenizer = load_tokenizer(source, template=settings.chat_template)
    log.info(tokenizer.template_reason)
    name, reason = choose_engine(source, settings.engine)
    log.info("Engine %s: %s.", name, reason)
    options = EngineOptions.from_settings(settings)
    logs = partial(configure_logging, settings.log_format, settings.log_level, process="engine")
    make = partial(EngineProcess, source, options, engine=name, configure_log=logs)
    gone, weights = Stop(), source.gguf_weights
    engine = SupervisedEngine(
        make,
        stall_s=settings.stall_s,
        is_gone=lambda: name != "transformers" and weights is not None and not weights.exists(),
        on_gone=gone.stop,
    )
    engine.start()
    log.info(engine.description)
    sampling = sampling_defaults(source, engine.limits.supports, engine.limits.vocab_size)
    chosen = ", ".join(f"{name} {value}" for name, value in asdict(sampling).items())
    log.info("Sampling where a request leaves it open: %s.", chosen)
    planner = ChatPlanner(tokenizer, engine, sampling, thinking=settings.thinking)
    return LoadedModel(engine, planner, sampling, _supported(engine, tokenizer), gone)


def _supported(engine: Engine, tokenizer: ChatTokenizer) -> frozenset[str]:
    """What a request may carry. The names of what the loop alone tells the engine are not among them."""
    parser, calls = tokenizer.answer_parser([]), tokenizer.call_format
    obeys = bool(engine.limits.grammar_notation)
    found = {
        "thinking": tokenizer.has_thinking_switch,
        "tools": calls is not None,
        "strict_tools": obeys and calls is not None and calls.frame is not None,
        "response_format": obeys and not (parser and parser.has_heads),
    }
    known = {"ignore_eos", "continue_final", "prompt"} | {name for name, is_there in found.items() if is_there}
    return engine.limits.supports - {"num_answered", "grammar"} | known


def serve_until(stop: Stop, settings: Settings, redis: Redis, model: str, loaded: LoadedModel) -> None:
    """Serve until asked to stop, drain, stop the engine."""
    engine = loaded.engine
    try:
        if wait_for_redis(redis, log.warning, stop.asked):
            worker = Worker.from_settings(
                settings, redis, model, engine, loaded.planner, sampling=loaded.sampling, supports=loaded.supports
            )
            stop.pass_on(worker)
            loaded.gone.pass_on(worker)
            if not stop.asked.is_set():
                log.info("serving %s with %d slots", model, engine.limits.max_running)
                worker.run()
            if loaded.gone.asked.is_set():
                log.error("the file that %s was served from is gone; it must be loaded anew", model)
    finally:
        engine.stop()
