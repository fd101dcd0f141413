"""What waits to be sent: counted until it was sent, bounded for one socket and for all of them."""

import pytest
from engineio.packet import MESSAGE, Packet
from gevent.queue import Empty

from webapp.server.transport import MAX_QUEUED_BYTES, ROOM_BYTES, Outbox, SendQueue


def packet(num_chars: int) -> Packet:
    return Packet(MESSAGE, data="x" * num_chars)


def queue_of(outbox: Outbox, calls: list[str], name: str) -> SendQueue:
    made = SendQueue(outbox)
    made.give_up = lambda: calls.append(f"gave up {name}")
    made.drained = lambda: calls.append(f"{name} drained")
    return made


def take_all(queue: SendQueue) -> int:
    """As Engine.IO's sender does; the number of packets."""
    num_packets = 0
    with pytest.raises(Empty):
        while True:
            queue.get(block=num_packets == 0, timeout=1)
            queue.task_done()
            num_packets += 1
    return num_packets


def test_what_a_sender_took_counts_until_it_comes_back() -> None:
    """Engine.IO takes all packets before it writes the first: the queue looked empty while it blocked."""
    calls: list[str] = []
    queue = queue_of(Outbox(10**9), calls, "a")
    queue.put(packet(ROOM_BYTES))
    assert take_all(queue) == 1 and not queue.has_room and not calls
    with pytest.raises(Empty):
        queue.get(timeout=0.001)
    assert queue.has_room and queue.held_bytes == 0 and calls == ["a drained"]


def test_over_the_bound_of_a_process_whoever_takes_nothing_for_longest_is_given_up() -> None:
    calls: list[str] = []
    outbox = Outbox(1_000_000)
    slow, reader, late = (queue_of(outbox, calls, name) for name in ("slow", "reader", "late"))
    slow.put(packet(100_000))
    reader.put(packet(100_000))
    take_all(reader)
    late.put(packet(100_000))
    with pytest.raises(Empty):
        reader.get(timeout=0.001)
    reader.put(packet(100_000))
    assert calls == ["reader drained"]
    late.put(packet(250_000))
    assert calls == ["reader drained", "gave up slow"] and slow.held_bytes == 0
    reader.put(packet(20_000))
    assert len(calls) == 2, "what was given up is dropped, so there is room again"
    slow.put(packet(900_000))
    assert slow.held_bytes == 0 and len(calls) == 2, "a socket that was given up is sent nothing"


def test_replies_that_nobody_reads_end_their_socket() -> None:
    calls: list[str] = []
    queue = queue_of(Outbox(10**9), calls, "a")
    for _ in range(MAX_QUEUED_BYTES // 100_000):
        queue.put(packet(100_000))
    assert calls == ["gave up a"]
    queue.put(None)
    assert queue.get(timeout=1) is None, "its sender ends"
