"""A client that keeps no rule: HTTP and WebSocket by hand over one TCP connection, for tests of the web app's edges."""

import contextlib
import json
import socket
import struct
import threading
import time
import urllib.request
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

from tests.end_to_end.system import session_cookie

DEADLINE_S = 10.0


def tcp(url: str, receive_bytes: int = 0) -> socket.socket:
    """A connection; `receive_bytes` is the buffer of its kernel, 0 the kernel's choice."""
    address = urlsplit(url)
    assert address.hostname and address.port
    made = socket.socket()
    if receive_bytes:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
    made.settimeout(DEADLINE_S)
    made.connect((address.hostname, address.port))
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return made


def exchange(url: str, data: bytes) -> bytes:
    """What the server says to these bytes, and nothing more, until it closes. A reset ends it too."""
    with tcp(url) as sock:
        with contextlib.suppress(OSError):
            sock.sendall(data)
            sock.shutdown(socket.SHUT_WR)
        return everything(sock)


def everything(sock: socket.socket) -> bytes:
    """All that comes until the server closes; fails when it does not."""
    parts = []
    try:
        while part := sock.recv(65_536):
            parts.append(part)
    except TimeoutError:
        raise AssertionError(f"the server did not close within {DEADLINE_S:g} s") from None
    except OSError:
        pass
    return b"".join(parts)


def request(url: str, method: str, path: str, body: bytes = b"", **headers: str) -> tuple[int, bytes]:
    """Status and body of one honest request; header names are given with `_` for `-`."""
    lines = [f"{name.replace('_', '-')}: {value}" for name, value in {"Host": urlsplit(url).netloc, **headers}.items()]
    head = "\r\n".join([f"{method} {path} HTTP/1.1", *lines, f"Content-Length: {len(body)}", "Connection: close"])
    answer = exchange(url, head.encode() + b"\r\n\r\n" + body)
    top, _, rest = answer.partition(b"\r\n\r\n")
    return int(top.split()[1]) if top else 0, rest


@contextlib.contextmanager
def flood(url: str, head: bytes, data: bytes) -> Iterator[None]:
    """Meanwhile a client sends `data` again and again, as fast as it is taken, and reads all answers."""
    with tcp(url) as sock:
        sock.sendall(head)

        def send() -> None:
            with contextlib.suppress(OSError):
                while True:
                    sock.sendall(data)

        def read() -> None:
            with contextlib.suppress(OSError):
                while sock.recv(65_536):
                    pass

        threads = [threading.Thread(target=work, daemon=True) for work in (send, read)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            for thread in threads:
                thread.join()


def healthy(url: str) -> bool:
    with urllib.request.urlopen(f"{url}/healthz", timeout=DEADLINE_S) as answer:
        return bool(answer.status == 200)


def frame(payload: str | bytes, *, opcode: int = 1, final: bool = True) -> bytes:
    """A client's frame, masked with zeros."""
    data = payload.encode() if isinstance(payload, str) else payload
    first = opcode | (0x80 if final else 0)
    if len(data) < 126:
        head = bytes((first, 0x80 | len(data)))
    elif len(data) < 65_536:
        head = struct.pack(">BBH", first, 0xFE, len(data))
    else:
        head = struct.pack(">BBQ", first, 0xFF, len(data))
    return head + bytes(4) + data


def upgrade(
    url: str, cookie: str, query: str = "EIO=4&transport=websocket", origin: str = "", address: str = ""
) -> bytes:
    """The request that opens a WebSocket; `address` is what a proxy says of its client."""
    return (
        f"GET /socket.io/?{query} HTTP/1.1\r\nHost: {urlsplit(url).netloc}\r\nCookie: {cookie}\r\n"
        + (f"Origin: {origin}\r\n" if origin else "")
        + (f"X-Forwarded-For: {address}\r\n" if address else "")
        + "Connection: Upgrade\r\nUpgrade: websocket\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    ).encode()


class Attacker:
    """A Socket.IO client over a WebSocket that sends what it is told. It reads only while it waits for something."""

    def __init__(self, url: str, cookie: str = "", receive_bytes: int = 0, address: str = "") -> None:
        self.cookie = cookie or session_cookie(url)
        self.events: list[tuple[str, dict[str, Any]]] = []
        self.closed = False
        self.acks: dict[int, Any] = {}
        self._calls = 0
        self.sock = tcp(url, receive_bytes)
        self.sock.sendall(upgrade(url, self.cookie, address=address))
        self._rest = b""
        while b"\r\n\r\n" not in self._rest:
            self._rest += self.sock.recv(4096)
        status, _, self._rest = self._rest.partition(b"\r\n\r\n")
        assert status.startswith(b"HTTP/1.1 101"), status
        self.send("40")
        self.read_until(lambda: self.connected)

    connected = False

    def __enter__(self) -> "Attacker":
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()

    def send(self, packet: str | bytes, **framing: Any) -> None:
        self.sock.sendall(frame(packet, **framing))

    def ends(self) -> bool:
        """Whether the server ends the connection, as it must; fails when it does not."""
        self.read_until(lambda: False)
        return self.closed

    def post(self, event: Any, *arguments: Any) -> int:
        """Send an event that asks for an acknowledgement, whose number this is."""
        self._calls += 1
        self.send(f"42{self._calls}" + json.dumps([event, *arguments]))
        return self._calls

    def call(self, event: Any, *arguments: Any) -> Any:
        return self.acknowledgement(self.post(event, *arguments))

    def acknowledgement(self, number: int) -> Any:
        self.read_until(lambda: number in self.acks)
        assert number in self.acks, "the socket was closed instead of an acknowledgement"
        return self.acks.pop(number)

    def ask(self, rid: str, text: str, model: str = "fast") -> Any:
        messages, sampling = [{"role": "user", "content": text}], {"max_new_tokens": 100_000}
        return self.call("submit", {"id": rid, "model": model, "messages": messages, "sampling": sampling})

    def is_cut_off(self) -> bool:
        """Whether the server has ended a connection that nobody reads from; what it had sent is still to be read."""
        self.sock.settimeout(DEADLINE_S)
        everything(self.sock)
        return True

    def answer(self, rid: str, offset: int = 0) -> str:
        """The whole answer from an offset on; fails on a gap, a repeat, a rewind or another end than `finished`."""
        self.read_until(lambda: any(name == "done" and event["id"] == rid for name, event in self.events))
        return self.text(rid, offset)

    def text(self, rid: str, offset: int = 0) -> str:
        """What has come of an answer from an offset on, with the same checks."""
        text = ""
        for name, event in self.events:
            if event["id"] == rid and name != "status":
                have = offset + len(text)
                assert (name, event["offset"]) in (("tokens", have), ("done", have)), event
                assert event.get("status", "finished") == "finished", event
                text += event.get("text", "")
        return text

    def waiting_bytes(self) -> int:
        """Read and forget all that comes until the server has nothing more for a client that acknowledges nothing."""
        num_bytes = 0
        self.sock.settimeout(1)
        with contextlib.suppress(TimeoutError):
            while part := self.sock.recv(65_536):
                num_bytes += len(part)
        self.sock.settimeout(DEADLINE_S)
        return num_bytes

    @property
    def texts(self) -> dict[str, str]:
        """The answers of which text has come, each with the nonce of the last one."""
        return {event["id"]: event["nonce"] for name, event in self.events if name == "tokens"}

    def is_closed_in_the_end(self) -> bool:
        """Whether the server has closed this connection, once all that it sent before is read."""
        self.sock.settimeout(1)
        with contextlib.suppress(AssertionError):
            self.read_until(lambda: False, 5)
        return self.closed

    def read_until(self, condition: Any, timeout_s: float = DEADLINE_S) -> None:
        """Take what comes until the condition holds or the connection ends."""
        deadline = time.monotonic() + timeout_s
        while not condition() and not self.closed:
            assert time.monotonic() < deadline, f"nothing came of it within {timeout_s:g} s"
            try:
                part = self.sock.recv(65_536)
            except TimeoutError:
                raise AssertionError(f"the server is silent for {DEADLINE_S:g} s") from None
            except OSError:
                part = b""
            self.closed = not part
            self._rest += part
            while self._take_frame():
                pass

    def _take_frame(self) -> bool:
        if len(self._rest) < 2:
            return False
        size, start = self._rest[1], 2
        if size >= 126:
            start = 4 if size == 126 else 10
            size = int.from_bytes(self._rest[2:start], "big")
        if len(self._rest) < start + size:
            return False
        opcode, data, self._rest = self._rest[0] & 15, self._rest[start : start + size], self._rest[start + size :]
        if opcode == 8:
            self.closed = True
        elif opcode == 1:
            self._take(data.decode())
        return True

    def _take(self, packet: str) -> None:
        if packet.startswith("2"):
            self.send("3")
        elif packet.startswith("40{"):
            self.connected = True
        elif packet.startswith("43"):
            number, _, data = packet[2:].partition("[")
            self.acks[int(number)] = (json.loads("[" + data) or [None])[0]
        elif packet.startswith("42"):
            name, event = json.loads(packet[2:])
            self.events.append((name, event))
            if name == "tokens":
                offset = event["offset"] + len(event["text"])
                self.send("42" + json.dumps(["received", {"id": event["id"], "offset": offset}]))
