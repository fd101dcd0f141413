"""An engine in a process of its own: what the contract suite cannot see. The packaged model, on openvino."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict

import orjson
import pytest

from services.errors import EngineError, InvalidRequest
from services.models.catalogue import resolve
from workers.engine import ENGINE_LOST, EngineEvent, EngineOptions, Sampling
from workers.engine_process import EngineProcess, _sampling

pytestmark = pytest.mark.model
PROMPT = [1, 40, 41, 42, 43]


def eventually(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture
def engine() -> Iterator[EngineProcess]:
    pytest.importorskip("openvino_genai")
    made = EngineProcess(resolve("smollm2-135m"), EngineOptions(slots=4), engine="openvino")
    made.start()
    yield made
    made.stop()


def test_the_options_of_a_request_reach_the_other_process_as_they_are() -> None:
    given = Sampling(8, 0.5, stop_token_ids=(1, 2), min_p=0.1, logit_bias=((7, -100.0), (8, 1.5)), num_answered=3)
    assert _sampling(orjson.loads(orjson.dumps(asdict(given)))) == given


def test_tokens_and_the_end_come_through_and_stop_leaves_nothing(engine: EngineProcess) -> None:
    events: list[EngineEvent] = []
    engine.submit("a", PROMPT, Sampling(max_new_tokens=8, logprobs=True), events.append)
    eventually(lambda: events and events[-1].outcome)
    assert sum(len(event.token_ids) for event in events) == 8
    assert [len(event.logprobs) for event in events] == [len(event.token_ids) for event in events]
    assert all(logprob < 0 for event in events for logprob, _ in event.logprobs)
    assert (events[-1].outcome, events[-1].reason) == ("finished", "length")
    assert "openvino" in engine.description and engine.limits.max_running == 4
    with pytest.raises(InvalidRequest):
        engine.submit("b", [], Sampling(max_new_tokens=8), events.append)
    engine.stop()
    assert "engine-reader" not in {thread.name for thread in threading.enumerate()}
    with pytest.raises(EngineError):
        engine.submit("c", PROMPT, Sampling(max_new_tokens=8), events.append)


def test_a_killed_process_is_the_engines_fault_and_not_the_requests(engine: EngineProcess) -> None:
    """In the worker's process this would have been the worker's death, and each of its requests a try."""
    events: list[EngineEvent] = []
    engine.submit("a", PROMPT, Sampling(max_new_tokens=2000), events.append)
    eventually(lambda: events)
    os.kill(engine._process.pid, signal.SIGKILL)
    eventually(lambda: not engine.alive())
    eventually(lambda: events[-1].outcome)
    assert (events[-1].outcome, events[-1].reason) == ("failed", ENGINE_LOST)


def test_a_running_request_can_be_cancelled(engine: EngineProcess) -> None:
    events: list[EngineEvent] = []
    engine.submit("a", PROMPT, Sampling(max_new_tokens=2000), events.append)
    eventually(lambda: events)
    engine.cancel("a")
    eventually(lambda: events[-1].outcome)
    assert events[-1].outcome == "cancelled"
