import threading

import pytest

from services.errors import InvalidRequest
from workers.engine import EngineEvent
from workers.running import RunningRequests, is_out_of_memory


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


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB"), True),
        (RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 8 bytes."), True),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes."), True),
        (RuntimeError("Could not allocate memory"), True),
        (RuntimeError("std::bad_alloc"), True),
        ("No requests can be scheduled and no requests can be offloaded.", True),
        (MemoryError(), True),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), False),
        (RuntimeError("doesn't have allocated memory object."), False),
    ],
    ids=lambda value: str(value) or "MemoryError",
)
def test_words_about_memory_are_no_lack_of_it(error: object, expected: bool) -> None:
    assert is_out_of_memory(error) is expected
