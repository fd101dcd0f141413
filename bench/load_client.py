"""Many socket clients in one thread, for benches: docs/protocol.md over hand-parsed WebSocket frames and one epoll.

A client library costs more per token than the server that is measured, and shares its cores. What is received is kept
with the time of its receipt; what breaks the rules of the protocol is kept in `problems`.
"""

import base64
import contextlib
import os
import select
import socket
import struct
import time
import urllib.request
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import orjson

RECEIVED_EVERY = 4096
MASKED_BY_ZERO = 0x80


@dataclass
class Answer:
    """One answer as its client saw it. Times are `time.monotonic()`."""

    rid: str
    sent_at: float
    acked_at: float = 0.0
    done_at: float = 0.0
    length: int = 0
    acknowledged: int = 0
    pieces: list[str] = field(default_factory=list)
    arrivals: list[tuple[int, float]] = field(default_factory=list)  # text length after a piece, time of its receipt
    done: dict[str, Any] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    @property
    def text(self) -> str:
        return "".join(self.pieces)


class Client:
    """One WebSocket. `on_done` is called at the end of each of its answers."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.open = False
        self.answers: dict[str, Answer] = {}
        self.on_done: Callable[[Client, Answer], None] = lambda client, answer: None
        self._rest = b""
        self._acks: dict[int, Answer] = {}

    def submit(self, rid: str, model: str, text: str, **sampling: object) -> Answer:
        """Ask; the answer fills while the fleet runs."""
        number = len(self.answers)
        answer = self.answers[rid] = self._acks[number] = Answer(rid, time.monotonic())
        question = {"id": rid, "model": model, "messages": [{"role": "user", "content": text}], "sampling": sampling}
        self._send(b"42%d" % number + orjson.dumps(["submit", question]))
        return answer

    def watch(self, rid: str) -> None:
        """Ask for another socket's answer, from its beginning, without an acknowledgement."""
        self._send(b"42" + orjson.dumps(["watch", {"id": rid, "offset": 0, "nonce": ""}]))

    def pong(self) -> None:
        """Say that this client lives, without having read whether the server asks."""
        self._send(b"3")

    def feed(self, data: bytes, at: float) -> None:
        """Whole frames out of what has arrived; the start of another one waits for its end."""
        data = self._rest + data if self._rest else data
        start, size = 0, len(data)
        while size - start >= 2:
            length, head = data[start + 1], 2
            if length == 126:
                length, head = int.from_bytes(data[start + 2 : start + 4], "big"), 4
            elif length == 127:
                length, head = int.from_bytes(data[start + 2 : start + 10], "big"), 10
            end = start + head + length
            if end > size:
                break
            if data[start] == 0x81:
                self._packet(data[start + head : end], at)
            start = end
        self._rest = data[start:]

    def _packet(self, packet: bytes, at: float) -> None:
        kind = packet[:2]
        if kind == b"42":
            name, event = orjson.loads(packet[2:])
            answer = self.answers[event["id"]]
            if name == "tokens":
                self._tokens(answer, event["offset"], event["text"], at)
            elif name == "done":
                self._done(answer, event, at)
            elif name == "rewind":
                answer.problems.append(f"rewind to {event['offset']}")
        elif kind == b"43":
            self._acked(packet, at)
        elif kind == b"2":
            self._send(b"3")
        elif kind[:1] == b"0":
            self._send(b"40")
        elif kind == b"40":
            self.open = True

    def _tokens(self, answer: Answer, offset: int, text: str, at: float) -> None:
        if offset != answer.length:
            answer.problems.append(f"tokens at {offset}, have {answer.length}")
        answer.pieces.append(text)
        answer.length += len(text)
        answer.arrivals.append((answer.length, at))
        if answer.length - answer.acknowledged >= RECEIVED_EVERY:
            answer.acknowledged = answer.length
            self._send(b"42" + orjson.dumps(["received", {"id": answer.rid, "offset": answer.length}]))

    def _done(self, answer: Answer, event: dict[str, Any], at: float) -> None:
        if answer.done or event["offset"] != answer.length:
            answer.problems.append(f"end {event} at length {answer.length}")
        answer.done, answer.done_at = event, at
        self.on_done(self, answer)

    def _acked(self, packet: bytes, at: float) -> None:
        bracket = packet.index(b"[")
        answer = self._acks.pop(int(packet[2:bracket]))
        answer.acked_at = at
        (reply,) = orjson.loads(packet[bracket:])
        if not reply["ok"]:
            answer.problems.append(f"refused: {reply['error']}")
            answer.done, answer.done_at = {"status": "refused"}, at
            self.on_done(self, answer)

    def _send(self, payload: bytes) -> None:
        """Clients must mask; a mask of zeros is one. What a client sends always fits the socket's buffer."""
        size = len(payload)
        head = bytes((0x81, MASKED_BY_ZERO | size)) if size < 126 else struct.pack(">BBH", 0x81, 0xFE, size)
        frame = head + bytes(4) + payload
        if self.sock.send(frame) != len(frame):
            raise ConnectionError("the server does not read what its client sends")


class Fleet:
    """All clients of one bench."""

    def __init__(self, url: str) -> None:
        self._url = urlsplit(url)
        self._cookie = _session_cookie(url)
        self._epoll = select.epoll()
        self._clients: dict[int, Client] = {}

    @property
    def clients(self) -> list[Client]:
        return list(self._clients.values())

    def connect(self, count: int, *, receive_bytes: int = 0) -> list[Client]:
        """That many more open sockets, a few at a time. `receive_bytes` is the kernel's buffer, 0 its own choice."""
        made: list[Client] = []
        for _ in range(count):
            made.append(self._dial(receive_bytes))
            self.run(lambda: sum(not client.open for client in made[-20:]) < 20, 10.0)
        self.run(lambda: all(client.open for client in made), 30.0)
        return made

    def run(self, until: Callable[[], object], timeout_s: float, poll_s: float = 0.05) -> bool:
        """Receive until `until()` is true (asked after each batch); False when the time is over first."""
        deadline = time.monotonic() + timeout_s
        while not until():
            if time.monotonic() > deadline:
                return False
            for descriptor, _ in self._epoll.poll(poll_s):
                client = self._clients[descriptor]
                data = client.sock.recv(65_536)
                if not data:
                    raise ConnectionError(f"the server closed a socket; its client had {len(client.answers)} answers")
                client.feed(data, time.monotonic())
        return True

    def ignore(self, clients: Iterable[Client]) -> None:
        """Read nothing for these from now on."""
        for client in clients:
            self._epoll.unregister(client.sock)

    def close(self) -> None:
        for client in self._clients.values():
            with contextlib.suppress(OSError):
                client.sock.close()
        self._clients.clear()
        self._epoll.close()

    def _dial(self, receive_bytes: int) -> Client:
        assert self._url.hostname and self._url.port
        sock = socket.socket()
        if receive_bytes:  # before the handshake, which tells the peer
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        sock.settimeout(10)
        sock.connect((self._url.hostname, self._url.port))
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        key = base64.b64encode(os.urandom(16)).decode()
        lines = (
            "GET /socket.io/?EIO=4&transport=websocket HTTP/1.1",
            f"Host: {self._url.netloc}",
            "Upgrade: websocket",
            "Connection: Upgrade",
            f"Sec-WebSocket-Key: {key}",
            "Sec-WebSocket-Version: 13",
            f"Cookie: {self._cookie}",
        )
        sock.sendall(("\r\n".join(lines) + "\r\n\r\n").encode())
        reply = b""
        while b"\r\n\r\n" not in reply:
            reply += sock.recv(4096) or b"\r\n\r\n"
        status, _, rest = reply.partition(b"\r\n\r\n")
        if b" 101 " not in status.split(b"\r\n")[0]:
            raise ConnectionError(f"no upgrade to a WebSocket: {status[:200]!r}")
        sock.setblocking(False)
        client = self._clients[sock.fileno()] = Client(sock)
        self._epoll.register(sock, select.EPOLLIN)
        if rest:
            client.feed(rest, time.monotonic())
        return client


def _session_cookie(url: str) -> str:
    with urllib.request.urlopen(f"{url}/api/session", timeout=10) as answer:
        cookies = answer.headers.get_all("Set-Cookie") or []
    return "; ".join(str(cookie).partition(";")[0] for cookie in cookies)
