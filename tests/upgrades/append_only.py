"""The append-only file of Redis as commands: all that a build ever wrote to Redis, byte by byte."""

from collections.abc import Callable, Iterator, Sequence

Command = Sequence[bytes]


def read_commands(data: bytes) -> Iterator[Command]:
    """The commands of a file that is whole. Raises ValueError elsewhere."""
    at = 0
    while at < len(data):
        count, at = _number(data, at, b"*")
        words = []
        for _ in range(count):
            size, at = _number(data, at, b"$")
            words.append(data[at : at + size])
            at += size + 2
        yield words


def _number(data: bytes, at: int, mark: bytes) -> tuple[int, int]:
    """The number after a mark, and where its line ends."""
    if data[at : at + 1] != mark:
        raise ValueError(f"byte {at} is {data[at : at + 20]!r}, not a {mark!r} of an append-only file")
    end = data.index(b"\r\n", at)
    return int(data[at + 1 : end]), end + 2


def changed(data: bytes, change: Callable[[bytes], bytes]) -> bytes:
    """The same file with every word of its commands changed."""
    return b"".join(_encoded([change(word) for word in command]) for command in read_commands(data))


def _encoded(command: Command) -> bytes:
    return b"*%d\r\n" % len(command) + b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in command)
