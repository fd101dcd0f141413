"""The WebSocket under Engine.IO: messages whole, and nothing that a client sends grows without bound."""

import socket
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from webapp.application import too_large
from webapp.server.websocket import PART_BYTES, WebSocket

LIMIT = 10_000


def frame(payload: bytes, *, opcode: int = 1, final: bool = True) -> bytes:
    """A client's frame, masked with zeros."""
    assert len(payload) < 126
    return bytes((opcode | (0x80 if final else 0), 0x80 | len(payload))) + bytes(4) + payload


class Session:
    """What Engine.IO's session is to a WebSocket that has no handler to run."""

    upgraded = True

    def handle(self, _: WebSocket) -> Iterator[bytes]:
        return iter(())


@pytest.fixture
def websocket() -> Iterator[WebSocket]:
    made = WebSocket(Session().handle, SimpleNamespace(max_http_buffer_size=LIMIT), too_large=too_large)
    made._sock, far = socket.socketpair()
    yield made
    made._sock.close()
    far.close()


def test_fragments_are_put_together(websocket: WebSocket) -> None:
    assert websocket._take(frame(b'42["a', final=False)) and websocket._messages == []
    assert websocket._take(frame(b'b"]', opcode=0))
    assert websocket._messages == ['42["ab"]'] and websocket._num_bytes == 0


def test_empty_fragments_count_too(websocket: WebSocket) -> None:
    """60,000 of them, 360 KB, froze the process for 40 s: all were counted at every frame, and none had a size."""
    websocket._take(frame(b"x", final=False))
    taken = 0
    while websocket._take(frame(b"", opcode=0, final=False)):
        taken += 1
    assert taken <= LIMIT // PART_BYTES


def test_of_an_event_that_is_too_large_nothing_is_held_but_who_asked(websocket: WebSocket) -> None:
    told: list[str] = []
    websocket.send = told.append  # type: ignore[method-assign,assignment]
    websocket._take(frame(b'427["submit","', final=False))
    for _ in range(LIMIT // 64):
        assert websocket._take(frame(b"x" * 100, opcode=0, final=False))
    assert sum(map(len, websocket._parts)) < 100 and told == []
    assert websocket._take(frame(b'"]', opcode=0) + frame(b'42["a"]'))
    assert told[0].startswith('437[{"ok": false') and websocket._messages == ['42["a"]']


def test_bytes_that_are_no_frame_end_the_connection(websocket: WebSocket) -> None:
    assert not websocket._take(b"\xff\xff\xff\xff")


@pytest.mark.parametrize(
    "message", [b"", b"x", b"4", b"4[[[[", b"451-[]", b"43[]", b"42/other,[]", b"7", b"2", "4²".encode()]
)
def test_a_message_that_no_client_sends_ends_the_connection(websocket: WebSocket, message: bytes) -> None:
    """Engine.IO parsed some of them outside of its `try`: the socket stayed half open and a traceback was logged."""
    assert not websocket._take(frame(message)) and websocket._messages == []


def test_binary_messages_end_the_connection(websocket: WebSocket) -> None:
    """They were kept for a binary event whose last attachment need never come."""
    assert not websocket._take(frame(b"3", opcode=2))


def test_an_upgrade_that_ends_early_is_told_from_an_end(websocket: WebSocket) -> None:
    """Engine.IO took the length of None."""
    websocket._input = SimpleNamespace(read1=lambda _: b"")
    websocket._session.upgraded = False
    assert websocket.wait() == "6"
    websocket._session.upgraded = True
    assert websocket.wait() is None
