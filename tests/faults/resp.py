"""Where a RESP2 message ends: enough of the wire format to cut a stream of bytes between two messages.

Commands, replies and the append-only file all have this shape. Used by the proxy and by cuts of the file.
"""

from collections.abc import Iterator


def end_of(data: bytes | bytearray, start: int = 0) -> int | None:
    """The index after the message that starts at `start`; None when it is not whole yet."""
    line_end = data.find(b"\r\n", start)
    if line_end < 0:
        return None
    kind, after = data[start : start + 1], line_end + 2
    if kind not in (b"$", b"*"):
        return after
    length = int(data[start + 1 : line_end])
    if kind == b"$":
        end = after + max(length + 2, 0) if length >= 0 else after
        return end if end <= len(data) else None
    for _ in range(length):
        element_end = end_of(data, after)
        if element_end is None:
            return None
        after = element_end
    return after


def messages(data: bytes | bytearray, start: int = 0) -> Iterator[tuple[int, int]]:
    """(start, end) of every whole message from `start` on."""
    while start < len(data) and (end := end_of(data, start)) is not None:
        yield start, end
        start = end


def take_messages(buffer: bytearray) -> list[bytes]:
    """Remove the whole messages from the front of a buffer."""
    spans = list(messages(buffer))
    taken = [bytes(buffer[start:end]) for start, end in spans]
    if spans:
        del buffer[: spans[-1][1]]
    return taken
