"""The WebSocket under Engine.IO: messages whole, and nothing that a client sends grows without bound."""

import socket
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from webapp.websocket import PART_BYTES, WebSocket

LIMIT = 10_000


def frame(payload: bytes, *, opcode: int = 1, final: bool = True) -> bytes:
    """A client's frame, masked with zeros."""
    assert len(payload) < 126
    return bytes((opcode | (0x80 if final else 0), 0x80 | len(payload))) + bytes(4) + payload


@pytest.fixture
def websocket() -> Iterator[WebSocket]:
    made = WebSocket(lambda _: [], SimpleNamespace(max_http_buffer_size=LIMIT))
    made._sock, far = socket.socketpair()
    yield made
    made._sock.close()
    far.close()


def test_fragments_are_put_together(websocket: WebSocket) -> None:
    assert websocket._take(frame(b"hel", final=False)) and websocket._messages == []
    assert websocket._take(frame(b"lo", opcode=0))
    assert websocket._messages == ["hello"] and websocket._held_bytes == 0


def test_empty_fragments_count_too(websocket: WebSocket) -> None:
    """60,000 of them, 360 KB, froze the process for 40 s: all were counted at every frame, and none had a size."""
    websocket._take(frame(b"x", final=False))
    taken = 0
    while websocket._take(frame(b"", opcode=0, final=False)):
        taken += 1
    assert taken <= LIMIT // PART_BYTES


def test_bytes_that_are_no_frame_end_the_connection(websocket: WebSocket) -> None:
    assert not websocket._take(b"\xff\xff\xff\xff")
