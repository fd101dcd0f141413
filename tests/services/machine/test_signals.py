"""Signals are heard outside the main thread: `chatserver up` once hung on a Ctrl-C that met its wait."""

import signal
import threading

from services.machine.signals import hearing


def test_a_signal_that_comes_while_the_main_thread_holds_what_it_needs_is_heard_later() -> None:
    lock, heard = threading.Lock(), threading.Event()

    def act(number: int) -> None:
        with lock:
            heard.set()

    with hearing([signal.SIGUSR1], act):
        with lock:
            signal.raise_signal(signal.SIGUSR1)  # a handler that acts itself would never return from this
            assert not heard.is_set()
        assert heard.wait(5)


def test_each_signal_is_heard_in_turn_and_the_handlers_before_come_back() -> None:
    before = signal.getsignal(signal.SIGUSR1)
    numbers: list[int] = []
    done = threading.Event()

    def act(number: int) -> None:
        numbers.append(number)
        if len(numbers) == 3:
            done.set()

    with hearing([signal.SIGUSR1, signal.SIGUSR2], act):
        for number in (signal.SIGUSR1, signal.SIGUSR2, signal.SIGUSR1):
            signal.raise_signal(number)
        assert done.wait(5)
    assert numbers == [signal.SIGUSR1, signal.SIGUSR2, signal.SIGUSR1]
    assert signal.getsignal(signal.SIGUSR1) == before


def test_whatever_came_is_heard_before_it_ends_and_its_thread_ends_with_it() -> None:
    """A SIGTERM that came as Redis answered was lost: the program went on and loaded a model."""
    numbers: list[int] = []
    for _ in range(300):
        with hearing([signal.SIGUSR1], numbers.append):
            signal.raise_signal(signal.SIGUSR1)
    assert len(numbers) == 300
    assert "signals" not in [thread.name for thread in threading.enumerate()]
