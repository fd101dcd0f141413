"""Notices an engine that died or hangs, fails its requests, and starts a new one. The worker uses `SupervisedEngine`.

Every request of a lost engine gets its one terminal event, `failed` with ENGINE_LOST, so that the worker begins it
again. The watchdog kills an engine in its own process. It cannot kill an engine in a thread: it abandons that engine
and ignores its later events.
"""

import logging
import threading
import time
from collections.abc import Callable, Sequence

from services.errors import EngineError
from workers.engine import ENGINE_LOST, Engine, EngineEvent, ModelLimits, OnEvent, Sampling
from workers.running import RunningRequests

logger = logging.getLogger(__name__)

_FIRST_BACKOFF_S, _LONGEST_BACKOFF_S = 1.0, 60.0


class Watchdog:
    """Judges one engine by its evidence: `alive()` and `progress()` while requests run."""

    def __init__(self, engine: Engine, num_running: Callable[[], int], stall_s: float) -> None:
        self._engine = engine
        self._num_running = num_running
        self._stall_s = stall_s
        self._busy_since: float | None = None

    def check(self, now: float) -> str | None:
        """None while all is well, else the verdict. `now` is `time.monotonic()`; call it at least once a second."""
        if not self._engine.alive():
            return f"the {self._engine.name} engine's loop has died"
        if not self._num_running():
            self._busy_since = None
            return None
        if self._busy_since is None:
            self._busy_since = now
        idle_s = now - max(self._engine.progress(), self._busy_since)
        if idle_s <= self._stall_s:
            return None
        return f"the {self._engine.name} engine made no step for {idle_s:.0f} s with {self._num_running()} requests"


class SupervisedEngine:
    """An Engine that replaces the adapter inside it when that dies or hangs. `alive()` is False while it does."""

    def __init__(
        self,
        make_engine: Callable[[], Engine],
        *,
        stall_s: float = 60.0,
        check_every_s: float = 0.5,
        is_gone: Callable[[], bool] = lambda: False,
        on_gone: Callable[[], None] = lambda: None,
    ) -> None:
        """`make_engine` returns a new adapter, not started; it is called again for each replacement.

        When one does not start because the file that it reads `is_gone`, none ever will: then `on_gone` is called.
        """
        self._make_engine = make_engine
        self._stall_s = stall_s
        self._check_every_s = check_every_s
        self._is_gone, self._on_gone = is_gone, on_gone
        self._running = RunningRequests()
        self._engine = make_engine()
        self._limits: ModelLimits | None = None
        self._ready = False
        self._stopping = threading.Event()
        self._supervisor: threading.Thread | None = None
        self.num_restarts = 0

    @property
    def name(self) -> str:
        return self._engine.name

    @property
    def description(self) -> str:
        return self._engine.description

    @property
    def limits(self) -> ModelLimits:
        """The limits of the last engine that started, also during a restart."""
        return self._limits or self._engine.limits

    def start(self) -> None:
        self._engine.start()
        self._limits = self._engine.limits
        self._ready = True
        self._stopping.clear()
        self._supervisor = threading.Thread(target=self._supervise, name="engine-watchdog", daemon=True)
        self._supervisor.start()

    def stop(self) -> None:
        supervisor, self._supervisor = self._supervisor, None
        if supervisor is None:
            return
        self._stopping.set()
        supervisor.join()
        self._ready = False
        self._engine.stop()
        self._running.end_all("cancelled", message="the engine was stopped")

    def submit(self, request_id: str, prompt_token_ids: Sequence[int], sampling: Sampling, on_event: OnEvent) -> None:
        engine = self._engine
        if not self.alive():
            raise EngineError(f"the {self.name} engine is being restarted; try again")
        self._running.add(request_id, on_event)
        try:
            engine.submit(request_id, prompt_token_ids, sampling, lambda event: self._forward(engine, event))
        except BaseException:
            self._running.discard(request_id)
            raise
        if engine is not self._engine:  # replaced meanwhile: its end may have been missed
            self._running.end(request_id, "failed", reason=ENGINE_LOST, message="the engine was restarted")

    def cancel(self, request_id: str) -> None:
        self._engine.cancel(request_id)

    def progress(self) -> float:
        return self._engine.progress()

    def alive(self) -> bool:
        return self._ready and self._engine.alive()

    def _forward(self, engine: Engine, event: EngineEvent) -> None:
        if engine is self._engine:  # else an abandoned engine that woke up
            self._running.pass_on(event)

    # ---- the supervisor's thread

    def _supervise(self) -> None:
        watchdog = Watchdog(self._engine, lambda: len(self._running), self._stall_s)
        while not self._stopping.wait(self._check_every_s):
            verdict = watchdog.check(time.monotonic())
            if verdict is not None:
                self._replace(verdict)
                watchdog = Watchdog(self._engine, lambda: len(self._running), self._stall_s)

    def _replace(self, verdict: str) -> None:
        logger.error("%s; failing %d requests and restarting it", verdict, len(self._running))
        self._ready = False
        lost, self._engine = self._engine, self._make_engine()
        self._running.end_all("failed", reason=ENGINE_LOST, message=verdict)
        # Stopping waits for a thread that may never come back, so it must not hold up the new engine.
        threading.Thread(target=lost.stop, name="engine-abandoned", daemon=True).start()
        backoff_s = _FIRST_BACKOFF_S
        while not self._stopping.is_set() and not self._restarted():
            if self._is_gone():
                self._on_gone()
                self._stopping.wait()
                return
            self._stopping.wait(backoff_s)
            backoff_s = min(backoff_s * 2, _LONGEST_BACKOFF_S)

    def _restarted(self) -> bool:
        try:
            self._engine.start()
        except Exception as error:  # noqa: BLE001 - a named loop boundary: the next try follows
            logger.error("the %s engine does not start again: %s", self.name, error)
            return False
        self.num_restarts += 1
        self._ready = True
        logger.warning("the engine runs again: %s", self.description)
        return True
