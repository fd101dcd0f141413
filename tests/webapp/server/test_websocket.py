"""The WebSocket under Engine.IO: messages whole, and nothing that a client sends grows without bound."""

import json
import socket
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from webapp.application import too_large
from webapp.server.inbox import BUSY, Inbox, Intake
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
def inbox() -> Inbox:
    return Inbox(2 * LIMIT)


@pytest.fixture
def websocket(inbox: Inbox) -> Iterator[WebSocket]:
    server = SimpleNamespace(max_http_buffer_size=LIMIT)
    made = WebSocket(Session().handle, server, inbox=inbox, too_large=too_large)
    made._sock, made._far = socket.socketpair()  # type: ignore[attr-defined]
    yield made
    made._sock.close()
    made._far.close()  # type: ignore[attr-defined]


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
    assert len(websocket._parts) < 100 and told == []
    assert websocket._take(frame(b'"]', opcode=0) + frame(b'42["a"]'))
    assert told[0].startswith('437[{"ok": false') and websocket._messages == ['42["a"]']


def test_text_waits_for_its_end_in_the_bytes_that_came(websocket: WebSocket, inbox: Inbox) -> None:
    """One character outside of the basic plane made four bytes of each other one: 850 KB took 3.4 MB."""
    websocket._take(frame("𝄞".encode(), final=False))
    for _ in range(50):
        websocket._take(more("x" * 90))
    assert isinstance(websocket._parts, bytearray) and inbox.held_bytes == len(websocket._parts) == 50 * 90 + 4


def more(text: str) -> bytes:
    return frame(text.encode(), opcode=0, final=False)


def fill(inbox: Inbox) -> Intake:
    """Another connection holds as much as there is room for, and less than `LIMIT`'s sender will."""
    other = inbox.intake(lambda: None)
    other.hold(2 * LIMIT - 5000)
    return other


def test_a_message_that_has_to_go_for_others_is_answered_once_it_is_whole(websocket: WebSocket, inbox: Inbox) -> None:
    """Its client is told when to send it again; a socket that closes would make it send the same at once."""
    told: list[str] = []
    websocket.send = told.append  # type: ignore[method-assign,assignment]
    websocket._take(frame(b'427["submit","', final=False))
    fill(inbox).finish()  # it is whole, so it stays
    for _ in range(90):
        assert websocket._take(more("x" * 100))
    assert len(websocket._parts) < 100 and inbox.held_bytes == 2 * LIMIT - 5000
    assert websocket._take(frame(b'"]', opcode=0) + frame(b'42["a"]'))
    assert told == ['437[{"ok": false, "error": ' + json.dumps(BUSY) + "}]"]
    assert websocket._messages == ['42["a"]'], "the socket goes on"


def test_a_message_that_has_to_go_and_asks_for_nothing_ends_its_socket(websocket: WebSocket, inbox: Inbox) -> None:
    fill(inbox).finish()
    websocket._take(frame(b'42["submit","', final=False))
    while websocket._take(more("x" * 100)):
        assert inbox.held_bytes <= 2 * LIMIT
    assert inbox.held_bytes == 2 * LIMIT - 5000
    assert websocket._far.recv(100)[:4] == b"\x88\x02" + (1013).to_bytes(2, "big")  # type: ignore[attr-defined]


def test_a_message_that_comes_too_slowly_ends_its_socket(websocket: WebSocket, monkeypatch: pytest.MonkeyPatch) -> None:
    """With pongs between its parts it lived for ever."""
    assert websocket._take(frame(b'427["submit","', final=False))
    assert websocket._take(more("x") + frame(b"3", opcode=10))
    monkeypatch.setattr("webapp.server.websocket.MESSAGE_S", 0.0)
    assert not websocket._take(more("x"))


def test_what_was_handed_over_is_not_counted_twice(websocket: WebSocket, inbox: Inbox) -> None:
    websocket._take(frame(b'42["a"]') + frame(b'42["b', final=False))
    assert inbox.held_bytes == 12
    assert websocket.wait() == '42["a"]' and inbox.held_bytes == 5


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
