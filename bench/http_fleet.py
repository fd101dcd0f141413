"""Many clients of `/v1/chat/completions` in one thread, for benches: plain HTTP over kept connections and one epoll."""

import select
import socket
import time
from collections.abc import Callable
from urllib.parse import urlsplit

import orjson

from bench.load_client import Answer

DATA, DONE = b"data: ", b"data: [DONE]"


class HttpClient:
    """One connection with one streamed answer at a time. `on_done` is called at the end of each of its answers."""

    def __init__(self, sock: socket.socket, host: str) -> None:
        self.sock = sock
        self.on_done: Callable[[HttpClient, Answer], None] = lambda client, answer: None
        self._host = host
        self._answer: Answer | None = None
        self._rest = b""

    def submit(self, rid: str, model: str, text: str, **fields: object) -> Answer:
        """Ask; the answer fills while the fleet runs."""
        message = {"role": "user", "content": text}
        body = orjson.dumps({"model": model, "messages": [message], "stream": True, **fields})
        head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: {self._host}\r\nContent-Type: application/json\r\n"
        self.sock.send(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        self._answer = Answer(rid, time.monotonic())
        return self._answer

    def feed(self, data: bytes, at: float) -> None:
        """Whole lines out of what has arrived. Each event is within one line, so chunks need no parsing."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            if line.startswith(DATA) and self._answer is not None:
                self._event(self._answer, line, at)
            elif line.startswith(b"HTTP/1.1 ") and b" 200 " not in line and self._answer is not None:
                self._answer.problems.append(line.decode())

    def _event(self, answer: Answer, line: bytes, at: float) -> None:
        answer.acked_at = answer.acked_at or at
        if line.startswith(DONE):
            answer.done, answer.done_at, self._answer = {"status": "finished"}, at, None
            self.on_done(self, answer)
            return
        frame = orjson.loads(line[len(DATA) :])
        if "error" in frame:
            answer.problems.append(str(frame["error"]))
        elif text := frame["choices"][0]["delta"].get("content"):
            answer.pieces.append(text)
            answer.length += len(text)
            answer.arrivals.append((answer.length, at))


class HttpFleet:
    """All clients of one bench."""

    def __init__(self, url: str) -> None:
        self._url = urlsplit(url)
        self._epoll = select.epoll()
        self._clients: dict[int, HttpClient] = {}

    @property
    def clients(self) -> list[HttpClient]:
        return list(self._clients.values())

    def connect(self, count: int) -> None:
        for _ in range(count):
            sock = socket.create_connection((self._url.hostname or "", self._url.port or 0), timeout=10)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setblocking(False)
            self._clients[sock.fileno()] = HttpClient(sock, self._url.netloc)
            self._epoll.register(sock, select.EPOLLIN)

    def run(self, until: Callable[[], object], timeout_s: float) -> bool:
        """Receive until `until()` is true (asked after each batch); False when the time is over first."""
        deadline = time.monotonic() + timeout_s
        while not until():
            if time.monotonic() > deadline:
                return False
            for descriptor, _ in self._epoll.poll(0.05):
                client = self._clients[descriptor]
                data = client.sock.recv(65_536)
                if not data:
                    raise ConnectionError("the server closed a connection")
                client.feed(data, time.monotonic())
        return True

    def close(self) -> None:
        for client in self._clients.values():
            client.sock.close()
        self._epoll.close()
