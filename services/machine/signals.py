"""Hears signals in a thread of its own.

A handler runs in the main thread, between two of its instructions: when it sets a `threading.Event` for which that
thread waits, or takes any other lock that it holds, both stop for ever. Here the handler only passes the number on.

    with hearing((signal.SIGTERM, signal.SIGINT), lambda number: stop.set()):
        stop.wait()
"""

import contextlib
import queue
import signal
import threading
from collections.abc import Callable, Iterator, Sequence


@contextlib.contextmanager
def hearing(numbers: Sequence[signal.Signals], heard: Callable[[int], object]) -> Iterator[None]:
    """Call `heard(number)` in a thread for each of these signals. Handlers are as before when the context is left.

    Only the main thread may enter it. When the context is left, every signal that came has been heard.
    """
    arrived: queue.SimpleQueue[int | None] = queue.SimpleQueue()  # `put` may interrupt itself

    def listen() -> None:
        while (number := arrived.get()) is not None:
            heard(number)

    listener = threading.Thread(target=listen, name="signals", daemon=True)
    listener.start()
    before = {number: signal.signal(number, lambda number, frame: arrived.put(number)) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        arrived.put(None)
        listener.join()
