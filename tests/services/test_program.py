"""How a program starts and ends: its probe answers in time, a wait for Redis ends with a signal."""

import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from services import program
from services.connection.connect import connect
from services.settings import Settings


@pytest.fixture
def silent() -> Iterator[socket.socket]:
    """A server that never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


def unused(settings: Settings) -> None:
    raise AssertionError("a probe serves nothing")


@pytest.mark.usefixtures("restored_logging")
def test_a_probe_that_gets_no_answer_says_so_in_time(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(program, "CHECK_S", 0.1)
    monkeypatch.setattr("sys.argv", ["x", "--check"])
    never = threading.Event()

    def check(settings: Settings) -> str:
        never.wait(30)
        return ""

    assert program.run("worker", unused, check) == 1
    assert capsys.readouterr().err == "worker: no answer within 0.1 s; does Redis answer at REDIS_URL?\n"
    never.set()


@pytest.mark.usefixtures("restored_logging")
def test_what_a_probe_finds_wrong_is_told(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.argv", ["x", "--check"])
    assert program.run("worker", unused, lambda settings: "it is gone") == 1
    assert program.run("worker", unused, lambda settings: "") == 0
    told = capsys.readouterr()
    assert (told.err, told.out) == ("worker: it is gone\n", "ok\n")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_wait_for_a_silent_redis_at_once_and_in_order(
    silent: socket.socket, number: signal.Signals, eventually: Callable[..., None]
) -> None:
    before = signal.getsignal(number)
    sent: list[float] = []

    def send_once_somebody_waits() -> None:
        """Not after a time: before the wait has begun, the signal would end the tests.

        Nor for a connection alone, which may be that of another test's client whose server had this port before.
        """
        with silent.accept()[0]:
            eventually(lambda: signal.getsignal(number) is not before, "the wait for the signal")
            sent.append(time.monotonic())
            os.kill(os.getpid(), number)
            over.wait(30)

    over = threading.Event()
    sender = threading.Thread(target=send_once_somebody_waits)
    sender.start()
    url = f"redis://127.0.0.1:{silent.getsockname()[1]}/0"
    with connect(url, role="test") as client, pytest.raises(SystemExit) as left:
        program.await_redis(client, lambda line: None)
    ended = time.monotonic()
    over.set()
    sender.join()
    assert left.value.code == 0
    assert ended - sent[0] < 3  # the time-out alone takes 5
    assert signal.getsignal(number) is before
