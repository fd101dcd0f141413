"""Slow work leaves threads to everybody else's, and threads at once never wait for ever."""

import subprocess
import sys
import threading

import gevent

from services.database.database import Database
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


def test_threads_that_write_and_log_at_once_all_end(database: Database) -> None:
    """One that met another in a lock of gevent slept for good: its answer was stored, and no later one ever was."""
    url = database.url.render_as_string(hide_password=False)
    program = [sys.executable, "-m", "tests.webapp.server.threads_at_once", url]
    ended = subprocess.run(program, capture_output=True, text=True, timeout=4 * WAIT_S, check=False)
    assert ended.returncode == 0, f"{ended.stderr.count('wrote')} of {8 * 25}: {ended.stderr[-100:]}"
    assert ended.stderr.count("wrote") == 8 * 25
