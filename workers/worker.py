"""One worker process: the threads around the loop, and its orderly start and end.

Four threads: the *main* one runs the loop and is the only one that writes answers; the *taker* takes requests while
there are free slots; the *listener* hears wake-ups; the *herald* announces presence. The engine brings its own.

Order of the end (SIGTERM or Ctrl-C): stop taking → journal what is there → hand the running requests back → leave the
registry → stop the engine.
"""

import logging
import os
import queue as queues
import secrets
import socket
import threading
import time
from collections.abc import Callable
from typing import Self

import orjson
from redis import Redis
from redis.exceptions import RedisError

from services.chat.journal import Journal
from services.chat.queue import RequestQueue
from services.machine.resident import resident_bytes
from services.program import build_version
from services.serving.registry import Registry, WorkerInfo
from services.settings import Settings
from services.wire.keys import Keys
from services.wire.messages import SamplingDefaults
from workers.assignment import Assignment, WorkerIdentity
from workers.engine import Engine, EngineEvent
from workers.generation import Planner
from workers.leases import Leases
from workers.loop import WorkerLoop

log = logging.getLogger("chatserver.worker")

KEEP_S = 0.25
ANNOUNCE_S = 1.0
LOOK_S = 0.5  # for requests whose wake-up was missed
RECONNECT_S = 0.5
JOIN_S = 2.0  # for all threads together: one may be in the middle of a call that Redis does not answer
TAKE_AHEAD = 2  # entries taken and not begun: nobody renews them while the main thread plans those before them
KEPT = "Redis failed; the worker keeps the generated tokens and sends them again"
_USUAL_SAMPLING = SamplingDefaults()
MANY_STREAMS = 16  # that share a flush: apart, the flushes would take a tenth of a core from the engine
SHORTEST_PAUSE_S = 0.005  # between two flushes
GATHER_S = 0.001  # a step reports its requests one after the other: one flush for all of them


class Cancellation(str):
    """A wake-up: this request was cancelled."""


class Worker:
    """Serves one model from one engine. `run` blocks until `stop` is called."""

    def __init__(
        self,
        redis: Redis,
        keys: Keys,
        model: str,
        engine: Engine,
        plan: Planner,
        *,
        sampling: SamplingDefaults = _USUAL_SAMPLING,
        supports: frozenset[str] = frozenset(),
        lease_s: float,
        stall_s: float,
        flush_s: float,
        drain_s: float,
        max_tries: int,
        queue_deadline_s: float,
        answer_ttl_s: int,
    ) -> None:
        # Unique for each start: a reused name would let the ghost of a former process pass for its owner.
        self.wid = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}"
        self._redis = redis
        self._keys = keys
        self._engine = engine
        self._flush_s = flush_s
        self._drain_s = drain_s
        self._model = model
        self._sampling = sampling
        self._supports = supports
        self._identity = WorkerIdentity(self.wid, max_tries, int(queue_deadline_s * 1000))
        self._queue = RequestQueue(redis, keys, model)
        self._journal = Journal(redis, keys, ttl_s=answer_ttl_s)
        self._registry = Registry(redis, keys)
        self._inbox: queues.SimpleQueue[Assignment | EngineEvent | Cancellation | None] = queues.SimpleQueue()
        self._permits = threading.Semaphore(0)
        self._permits_out = 0
        self._suspects_welcome = True
        self._complaints: dict[str, str] = {}  # what does not work → the reason told last
        self._queued = threading.Event()  # the line has moved
        self._stopping = threading.Event()
        self._flushed_at = self._kept_at = now = time.monotonic()
        self._started, self._version = time.time(), build_version()
        self._leases = Leases(self._queue, self._journal, self.wid, lease_s=lease_s, now=now)
        self.loop = WorkerLoop(
            redis,
            self._leases,
            engine,
            plan,
            stall_s=stall_s,
            slots=engine.limits.max_running,
            on_event=self._inbox.put,
            now=now,
        )

    @classmethod
    def from_settings(
        cls,
        settings: Settings,
        redis: Redis,
        model: str,
        engine: Engine,
        plan: Planner,
        *,
        sampling: SamplingDefaults = _USUAL_SAMPLING,
        supports: frozenset[str] = frozenset(),
    ) -> Self:
        return cls(
            redis,
            Keys(settings.namespace),
            model,
            engine,
            plan,
            sampling=sampling,
            supports=supports,
            lease_s=settings.lease_s,
            stall_s=settings.stall_s,
            flush_s=settings.flush_s,
            drain_s=settings.drain_s,
            max_tries=settings.max_tries,
            queue_deadline_s=settings.queue_deadline_s,
            answer_ttl_s=settings.answer_ttl_s,
        )

    def stop(self) -> None:
        """Ask `run` to drain and return. Any thread may call it, a signal handler may not."""
        self._stopping.set()
        self._inbox.put(None)

    def run(self) -> None:
        """Serve until `stop`, then hand back what runs. The engine is started; its owner stops it."""
        threads = [
            threading.Thread(target=target, name=name, daemon=True)
            for name, target in (("taker", self._take), ("listener", self._listen), ("herald", self._announce))
        ]
        for thread in threads:
            thread.start()
        try:
            while not self._stopping.is_set():
                self._work()
        finally:
            self._stopping.set()
            self._permits.release()
            self._queued.set()
            deadline = time.monotonic() + JOIN_S
            for thread in threads:  # the taker first: what it took last is handed back too
                thread.join(timeout=max(0.0, deadline - time.monotonic()))
            self._drain()

    # -- the main thread -----------------------------------------------------------------------------------------

    def _work(self) -> None:
        """One pass of the loop: handle new items, then write tokens, then renew leases."""
        self._grant()
        now = time.monotonic()
        due = min(self._kept_at + KEEP_S, self._flushed_at + self._pause_s if self.loop.unsent() else now + KEEP_S)
        urgent = self._attempt(self._receive, max(0.0, due - now))
        now = time.monotonic()
        if urgent or (now - self._flushed_at >= self._pause_s and self.loop.unsent()):
            self._flushed_at = now
            self._attempt(self.loop.flush, now)
        if now - self._kept_at >= KEEP_S:
            self._kept_at = now
            self._attempt(self._keep, now)

    @property
    def _pause_s(self) -> float:
        """Between two flushes. A stream alone waits for no others; the more there are, the more share one."""
        share = (len(self.loop.running) - 1) / (MANY_STREAMS - 1)
        return min(self._flush_s, max(SHORTEST_PAUSE_S, self._flush_s * share))

    def _attempt(self, action: Callable[[float], bool | None], argument: float) -> bool | None:
        """Repeat work on which Redis failed in a later pass. One node of a cluster may be away: the others go on."""
        try:
            return action(argument)
        except RedisError as error:
            self._leases.disconnected(time.monotonic())
            self._complain(KEPT, error)
            return None

    def _keep(self, now: float) -> None:
        self.loop.keep(now)
        if self._complaints.pop(KEPT, None):
            log.info("Redis answers again")

    def _grant(self) -> None:
        """Let the taker fetch entries while there are free slots."""
        self._suspects_welcome = not self.loop.has_suspect
        free = min(self.loop.num_free, TAKE_AHEAD) - self._permits_out
        if free > 0 and self._engine.alive():
            self._permits_out += free
            self._permits.release(free)

    def _receive(self, timeout_s: float) -> bool:
        """Handle new items, waiting for the first; whether a request's first token or its end is among them."""
        urgent = False
        try:
            item = self._inbox.get(timeout=timeout_s) if timeout_s else self._inbox.get_nowait()
            if isinstance(item, EngineEvent):
                time.sleep(GATHER_S)
            while True:
                urgent = self._handle(item) or urgent
                if isinstance(item, Assignment):
                    return urgent  # planning a long question takes a while: what runs gets its turn between two
                item = self._inbox.get_nowait()
        except queues.Empty:
            return urgent

    def _handle(self, item: Assignment | EngineEvent | Cancellation | None) -> bool:
        now = time.monotonic()
        if isinstance(item, EngineEvent):
            return self.loop.engine_event(item)
        if isinstance(item, Cancellation):
            self.loop.cancelled(item)
        elif isinstance(item, Assignment):
            self._permits_out -= 1
            if self._stopping.is_set():
                item.decline()
            else:
                self.loop.accept(item, now)
        return False

    def _drain(self) -> None:
        """Hand all requests back within `drain_s`, even when Redis comes and goes. Leases do the rest."""
        if KEPT in self._complaints and not self.loop.running:
            log.info("ending: Redis is away, and no request ran here")
            return
        deadline = time.monotonic() + self._drain_s
        while True:
            try:
                while not self._inbox.empty():
                    self._receive(0)
                handed = self.loop.drain(time.monotonic())
                self._registry.leave(self.wid)
                log.info("drained: %d requests handed back", handed)
                return
            except RedisError as error:
                if time.monotonic() > deadline:
                    log.warning("could not hand all requests back (%s); their leases will run out", error)
                    return
                time.sleep(0.1)

    # -- the other threads ---------------------------------------------------------------------------------------

    def _take(self) -> None:
        while True:
            self._permits.acquire()
            entry = None
            while entry is None:
                if self._stopping.is_set():
                    return
                self._queued.clear()
                try:
                    entry = self._queue.take(self.wid, suspects=self._suspects_welcome)
                except RedisError as error:
                    self._complain("cannot take requests", error)
                else:
                    self._complaints.pop("cannot take requests", None)
                    if entry is None:
                        self._queued.wait(LOOK_S)
            self._inbox.put(Assignment(self._queue, self._journal, self._identity, entry))

    def _listen(self) -> None:
        """Hear wake-ups. A missed wake-up does no harm: polling finds its request."""
        while not self._stopping.is_set():
            pubsub = self._redis.pubsub(ignore_subscribe_messages=True)
            try:
                pubsub.subscribe(self._keys.control)
                while not self._stopping.is_set():
                    message = pubsub.get_message(timeout=0.5)
                    self._complaints.pop("cannot hear wake-ups", None)
                    if message:
                        self._woken(*message["data"].decode(errors="replace").split(" ", 1))
            except RedisError as error:
                self._complain("cannot hear wake-ups", error)
            finally:
                pubsub.close()

    def _complain(self, what: str, error: RedisError) -> None:
        """Log a failure once, then wait: a missing permission must not look like an empty queue."""
        if self._complaints.get(what) != str(error):
            self._complaints[what] = str(error)
            log.warning("%s: %s", what, error)
        self._stopping.wait(RECONNECT_S)

    def _woken(self, what: str, name: str = "") -> None:
        if what == "cancel":
            self._inbox.put(Cancellation(name))
        elif what == "queued" and name == self._model:
            self._queued.set()

    def _announce(self) -> None:
        """Renew presence in a thread: a long step of the main thread must not look like a death."""
        tokens, at = self.loop.tokens, time.monotonic()
        while not self._stopping.is_set():
            now = time.monotonic()
            rate = (self.loop.tokens - tokens) / (now - at) if now > at else 0.0
            tokens, at = self.loop.tokens, now
            try:
                if self._engine.alive():
                    self._registry.announce(self._info(rate))
                else:  # it is being started again
                    self._registry.announce_loading(self._model)
            except RedisError as error:
                log.debug("presence refused: %s", error)
            self._stopping.wait(ANNOUNCE_S)

    def _info(self, rate: float) -> WorkerInfo:
        return WorkerInfo(
            wid=self.wid,
            model=self._model,
            engine=self._engine.name,
            slots=self.loop.slots,
            running=len(self.loop.running),
            tokens_per_s=round(rate, 1),
            context_tokens=self._engine.limits.context_tokens,
            host=socket.gethostname(),
            pid=os.getpid(),
            started=self._started,
            sampling=orjson.dumps(self._sampling).decode(),
            supports=" ".join(sorted(self._supports)),
            version=self._version,
            memory_mib=resident_bytes(os.getpid()) >> 20,
        )
