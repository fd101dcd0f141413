"""Messages and requests that never end: `python -m bench.unfinished`. What do they cost one web process?

Strangers open WebSockets without a cookie and send all of a message but its end; then others send all of an HTTP body
but its end. The bench prints the web process's resident memory before, at its highest and after all have closed, how
many the server has closed by itself, and how long an honest client's event took meanwhile.
"""

import argparse
import contextlib
import json
import socket
import struct
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from bench.system import BenchSystem, ended

HOLD_S = 3.0
CLOSE_WAIT_S = 4.0
UPGRADE = (
    "GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\n"
    "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)
PIECE = "x" * 4000 + "𝄞"  # one such character makes a text of Python four times as large


def dial(url: str) -> socket.socket:
    address = urlsplit(url)
    return socket.create_connection((address.hostname, address.port), timeout=20)


def half_message(url: str, num_bytes: int) -> socket.socket:
    """A WebSocket of nobody, and an event of that many bytes without its last one."""
    sock = dial(url)
    sock.sendall(UPGRADE.format(host=urlsplit(url).netloc).encode())
    while b"101" not in sock.recv(4096):
        pass
    text = ('421["submit","' + PIECE * (num_bytes // len(PIECE.encode()))).encode()
    sock.sendall(struct.pack(">BBQ", 0x81, 0xFF, len(text) + 1) + bytes(4))
    return sent(sock, text)


def half_post(url: str, num_bytes: int) -> socket.socket:
    """A request whose body lacks its last byte."""
    sock = dial(url)
    head = f"POST /api/session HTTP/1.1\r\nHost: {urlsplit(url).netloc}\r\nContent-Length: {num_bytes}\r\n\r\n"
    return sent(sock, head.encode() + b"x" * (num_bytes - 1))


def sent(sock: socket.socket, data: bytes) -> socket.socket:
    with contextlib.suppress(OSError):  # the server may close it in the middle
        sock.sendall(data)
    return sock


def honest_ms(url: str) -> float:
    """How long a small request takes."""
    begun_at = time.monotonic()
    with urllib.request.urlopen(f"{url}/healthz", timeout=30) as answer:
        answer.read()
    return 1000 * (time.monotonic() - begun_at)


def attack(system: BenchSystem, url: str, count: int, half: Callable[[], socket.socket]) -> dict[str, Any]:
    web = system.process("web")
    before = web.memory_info().rss
    highest, slowest, socks = before, 0.0, []
    for number in range(count):
        socks.append(half())
        highest = max(highest, web.memory_info().rss)
        if number % 20 == 0:
            slowest = max(slowest, honest_ms(url))
    time.sleep(HOLD_S)
    highest = max(highest, web.memory_info().rss)
    closed = sum(ended(sock) for sock in socks)
    for sock in socks:
        sock.close()
    time.sleep(CLOSE_WAIT_S)
    return {
        "count": count,
        "before_mib": round(before / 2**20, 1),
        "highest_mib": round(highest / 2**20, 1),
        "after_close_mib": round(web.memory_info().rss / 2**20, 1),
        "closed_by_server": closed,
        "honest_request_at_most_ms": round(slowest, 1),
    }


def measure(options: argparse.Namespace, folder: Path, kind: str) -> dict[str, Any]:
    with BenchSystem(folder, appendfsync="no") as system:
        url = system.start_web()
        honest_ms(url)
        num_bytes = options.kib * 1024
        if kind == "messages":
            return attack(system, url, options.sockets, lambda: half_message(url, num_bytes))
        return attack(system, url, options.posts, lambda: half_post(url, num_bytes))


def main() -> None:
    parser = argparse.ArgumentParser("python -m bench.unfinished", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sockets", type=int, default=100, help="without a cookie, each with an unfinished message")
    parser.add_argument("--posts", type=int, default=300, help="requests, each with an unfinished body")
    parser.add_argument("--kib", type=int, default=830, help="of each message and body")
    options = parser.parse_args()
    for kind in ("messages", "bodies"):
        with tempfile.TemporaryDirectory() as folder:
            print(kind, json.dumps(measure(options, Path(folder), kind)))
        sys.stdout.flush()


if __name__ == "__main__":
    main()
