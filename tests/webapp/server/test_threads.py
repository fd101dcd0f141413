"""Slow work leaves threads to everybody else's."""

import threading

import gevent

from webapp.server.threads import SLOW_AT_ONCE, in_slow_thread, in_thread

WAIT_S = 30


def test_slow_calls_leave_threads_to_the_others() -> None:
    """Fifteen filled the ten threads of a hub; the session check of every request waited for them."""
    goes_on, began = threading.Event(), list[int]()

    def slow(number: int) -> int:
        began.append(number)
        assert goes_on.wait(2 * WAIT_S)
        return number

    calls = [gevent.spawn(in_slow_thread, slow, number) for number in range(15)]
    gevent.sleep(0)  # each has asked for a thread
    try:
        with gevent.Timeout(WAIT_S):
            assert in_thread(str, 5) == "5"
        assert len(began) <= SLOW_AT_ONCE
    finally:
        goes_on.set()
        gevent.joinall(calls)
    assert sorted(call.value for call in calls) == sorted(began) == list(range(15))
