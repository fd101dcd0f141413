import threading

import pytest

from services.errors import InvalidRequest
from workers.engine import EngineEvent
from workers.running import RunningRequests


def test_many_threads_that_end_a_request_send_one_end() -> None:
    running = RunningRequests()
    events: list[EngineEvent] = []
    running.add("r", events.append)
    barrier = threading.Barrier(8)

    def end() -> None:
        barrier.wait()
        running.end("r", "cancelled")

    threads = [threading.Thread(target=end) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [event.outcome for event in events] == ["cancelled"]


def test_tokens_after_the_end_are_dropped() -> None:
    running = RunningRequests()
    events: list[EngineEvent] = []
    running.add("r", events.append)
    running.tokens("r", [1])
    running.end("r", "finished", reason="stop", token_ids=[2])
    running.tokens("r", [3])
    assert events == [EngineEvent("r", (1,)), EngineEvent("r", (2,), "finished", "stop")]


def test_an_id_that_runs_is_refused_and_one_that_ended_is_free() -> None:
    running = RunningRequests()
    running.add("r", lambda _: None)
    with pytest.raises(InvalidRequest, match="'r' is already running"):
        running.add("r", lambda _: None)
    running.end_all("cancelled")
    running.add("r", lambda _: None)
    assert len(running) == 1


def test_a_callback_that_raises_is_logged_and_harms_nobody_else(caplog: pytest.LogCaptureFixture) -> None:
    running = RunningRequests()
    events: list[EngineEvent] = []

    def fail(event: EngineEvent) -> None:
        raise RuntimeError("bug")

    running.add("bad", fail)
    running.add("good", events.append)
    running.tokens("bad", [1])
    running.end_all("cancelled")
    assert [event.request_id for event in events] == ["good"]
    assert "request bad: its callback failed on tokens" in caplog.text
