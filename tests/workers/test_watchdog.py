import threading
import time
from collections.abc import Callable, Iterator, Sequence

import pytest

from services.errors import ConfigurationError, EngineError, InvalidRequest
from workers.engine import ENGINE_LOST, EngineEvent, ModelLimits, OnEvent, Sampling
from workers.watchdog import SupervisedEngine, Watchdog

LIMITS = ModelLimits(100, 50, 4, frozenset())
DEADLINE_S = 20.0


class FakeEngine:
    """An engine whose life, progress and tokens the test decides."""

    name = "fake"
    description = "a fake engine"
    limits = LIMITS

    def __init__(self, *, broken: bool = False) -> None:
        self.broken = broken
        self.living = True
        self.stepped_at = time.monotonic()
        self.callbacks: dict[str, OnEvent] = {}
        self.stopped = threading.Event()

    def start(self) -> None:
        if self.broken:
            raise ConfigurationError("cannot load")

    def stop(self) -> None:
        self.stopped.set()

    def submit(self, request_id: str, prompt_token_ids: Sequence[int], sampling: Sampling, on_event: OnEvent) -> None:
        if not prompt_token_ids:
            raise InvalidRequest("empty")
        self.callbacks[request_id] = on_event

    def cancel(self, request_id: str) -> None:
        self.callbacks[request_id](EngineEvent(request_id, outcome="cancelled"))

    def progress(self) -> float:
        return self.stepped_at

    def alive(self) -> bool:
        return self.living


class Factory:
    """Makes fake engines and remembers them; the second one fails to start as often as asked."""

    def __init__(self) -> None:
        self.made: list[FakeEngine] = []

    def __call__(self) -> FakeEngine:
        self.made.append(FakeEngine())
        return self.made[-1]


def eventually(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true"
        time.sleep(0.005)


@pytest.fixture
def factory() -> Factory:
    return Factory()


@pytest.fixture
def supervised(factory: Factory) -> Iterator[SupervisedEngine]:
    engine = SupervisedEngine(factory, stall_s=0.3, check_every_s=0.01)
    engine.start()
    yield engine
    engine.stop()


def test_an_idle_engine_is_never_stuck() -> None:
    engine = FakeEngine()
    assert Watchdog(engine, lambda: 0, stall_s=5).check(engine.stepped_at + 1000) is None


def test_an_engine_without_a_step_while_requests_run_is_stuck() -> None:
    engine = FakeEngine()
    watchdog = Watchdog(engine, lambda: 3, stall_s=5)
    now = engine.stepped_at
    assert watchdog.check(now) is None
    assert watchdog.check(now + 4.9) is None
    assert watchdog.check(now + 6) == "the fake engine made no step for 6 s with 3 requests"
    engine.stepped_at = now + 5
    assert watchdog.check(now + 6) is None


def test_the_time_before_a_request_came_does_not_count() -> None:
    engine = FakeEngine()
    running = 0
    watchdog = Watchdog(engine, lambda: running, stall_s=5)
    assert watchdog.check(engine.stepped_at + 100) is None
    running = 1
    assert watchdog.check(engine.stepped_at + 101) is None
    assert watchdog.check(engine.stepped_at + 105) is None
    assert watchdog.check(engine.stepped_at + 107) is not None


def test_a_dead_engine_is_reported_even_when_idle() -> None:
    engine = FakeEngine()
    engine.living = False
    assert Watchdog(engine, lambda: 0, stall_s=5).check(0.0) == "the fake engine's loop has died"


def test_events_pass_through_and_the_request_is_forgotten_at_its_end(
    supervised: SupervisedEngine, factory: Factory
) -> None:
    events: list[EngineEvent] = []
    supervised.submit("r", [1], Sampling(5), events.append)
    told = [
        EngineEvent("r", (1, 2), logprobs=((-1.0, ()), (-2.0, ()))),
        EngineEvent("r", (3,), "finished", "length", logprobs=((-3.0, ()),)),
    ]
    for event in told:
        factory.made[0].callbacks["r"](event)
    assert events == told
    supervised.submit("r", [1], Sampling(5), events.append)


def test_a_refused_request_leaves_nothing_behind(supervised: SupervisedEngine) -> None:
    with pytest.raises(InvalidRequest, match="empty"):
        supervised.submit("r", [], Sampling(5), lambda _: None)
    supervised.submit("r", [1], Sampling(5), lambda _: None)


def test_a_dead_engine_fails_what_ran_once_and_is_replaced(supervised: SupervisedEngine, factory: Factory) -> None:
    events: list[EngineEvent] = []
    supervised.submit("r", [1], Sampling(5), events.append)
    factory.made[0].living = False
    eventually(lambda: supervised.num_restarts == 1)
    assert [(event.outcome, event.reason) for event in events] == [("failed", ENGINE_LOST)]
    assert supervised.alive()
    assert factory.made[0].stopped.wait(DEADLINE_S)
    supervised.submit("r", [1], Sampling(5), events.append)
    assert "r" in factory.made[1].callbacks


def test_a_stuck_engine_is_replaced_and_what_it_says_later_is_ignored(
    supervised: SupervisedEngine, factory: Factory
) -> None:
    events: list[EngineEvent] = []
    supervised.submit("r", [1], Sampling(5), events.append)
    eventually(lambda: supervised.num_restarts == 1)
    factory.made[0].callbacks["r"](EngineEvent("r", (9,), "finished", "length"))
    assert len(events) == 1
    assert "made no step" in events[0].message


def test_while_it_restarts_requests_are_refused_and_tries_go_on(
    supervised: SupervisedEngine, factory: Factory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.watchdog._FIRST_BACKOFF_S", 0.02)
    gate = threading.Event()

    def start(engine: FakeEngine) -> None:
        if not gate.is_set():
            raise ConfigurationError("still broken")

    monkeypatch.setattr(FakeEngine, "start", start)
    factory.made[0].living = False
    eventually(lambda: not supervised.alive() and len(factory.made) == 2)
    with pytest.raises(EngineError, match="being restarted"):
        supervised.submit("r", [1], Sampling(5), lambda _: None)
    assert supervised.limits == LIMITS
    gate.set()
    eventually(supervised.alive)


def test_stopping_ends_what_runs_and_stays_stopped(supervised: SupervisedEngine, factory: Factory) -> None:
    events: list[EngineEvent] = []
    supervised.submit("r", [1], Sampling(5), events.append)
    supervised.stop()
    supervised.stop()
    assert [event.outcome for event in events] == ["cancelled"]
    assert not supervised.alive()
    assert factory.made[0].stopped.is_set()


def test_an_engine_whose_file_is_gone_is_given_up_instead_of_started_for_ever(factory: Factory) -> None:
    """An export that replaced the file has another name: the model must be loaded anew."""
    gone, told = False, threading.Event()
    made = iter([factory(), FakeEngine(broken=True)])
    engine = SupervisedEngine(
        lambda: next(made), stall_s=0.3, check_every_s=0.01, is_gone=lambda: gone, on_gone=told.set
    )
    engine.start()
    gone = True
    assert not told.is_set()
    factory.made[0].living = False
    assert told.wait(DEADLINE_S) and engine.num_restarts == 0
    engine.stop()
