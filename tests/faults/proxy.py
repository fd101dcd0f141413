"""A TCP proxy in front of Redis that hurts the connections of one process and leaves those of others alone.

    with Proxy(server.url) as proxy:
        client = connect(proxy.url, role="test")
        proxy.reset()

It runs in a thread of its own; every method may be called from any thread, also from an action of its own. Bytes are
forwarded one whole RESP2 message at a time, so a fault falls between two commands or two replies, never inside one.
"""

import asyncio
import contextlib
import random
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

from tests.faults.resp import take_messages

CHUNK_BYTES = 65_536
_PUSHES = (b"$7\r\nmessage\r\n", b"$8\r\nsmessage\r\n", b"$8\r\npmessage\r\n")


class Held:
    """A command that was stopped on its way: `reached` says that it came. Its sender may die meanwhile; released, it
    arrives all the same. It never does when its connection was reset."""

    def __init__(self, pattern: bytes) -> None:
        self.pattern = pattern
        self.reached = threading.Event()
        self.command = b""
        self._gate = asyncio.Event()  # of the proxy's loop

    def release(self) -> None:
        """To be called in the proxy's loop; others call `Proxy.release`."""
        self._gate.set()

    async def wait(self, command: bytes) -> None:
        self.command = command
        self.reached.set()
        await self._gate.wait()


class CrashPoint:
    """Counts the commands that mention something; the n-th one is forwarded, and then `action` is called.

    What the client sends after it on connections that are open at that moment is dropped, as if it had died exactly
    there. A sweep asks for n = 1, 2, 3 … and is past the end when the work is done and `reached` is not set.
    """

    def __init__(self, n: int, action: Callable[[], object], mentioning: bytes) -> None:
        self.n = n
        self.mentioning = mentioning
        self.commands: list[bytes] = []  # those that counted
        self.reached = threading.Event()
        self._action = action

    def forwarded(self, command: bytes) -> bool:
        """Whether this was the n-th: the action has then been called."""
        if self.reached.is_set() or self.mentioning not in command:
            return False
        self.commands.append(command)
        if len(self.commands) < self.n:
            return False
        self._action()
        self.reached.set()
        return True


class Link:
    """One connection of the client and the one to Redis that belongs to it."""

    def __init__(self, client: asyncio.StreamWriter, server: asyncio.StreamWriter) -> None:
        self.client = client
        self.server = server
        self.swallowing = False  # bytes were lost on it: it can never be used again
        self.crashed = False  # what the client says is not heard any more
        self.held: Held | None = None

    def reset(self) -> None:
        """Both ends get an RST, whatever is still on its way."""
        self.crashed = True
        if self.held is not None:
            self.held.release()
        for writer in (self.client, self.server):
            _reset_on_close(writer)
            writer.transport.abort()


def _reset_on_close(writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


class Proxy:
    """Listens on a free port of 127.0.0.1 and forwards to the server of `target_url`, which is on 127.0.0.1 too."""

    def __init__(self, target_url: str) -> None:
        self._target = urlsplit(target_url)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="proxy", daemon=True)
        self._listening = threading.Event()
        self._closing = asyncio.Event()
        self._links: set[Link] = set()
        self._delay_s = 0.0
        self._swallow = False
        self._drop = 0.0
        self._random = random.Random(0)
        self._held: list[Held] = []
        self._crash_points: list[CrashPoint] = []
        self.num_dropped = 0
        self.port = 0

    @property
    def url(self) -> str:
        login = self._target.netloc.rpartition("@")[0]
        return self._target._replace(netloc=f"{login}@127.0.0.1:{self.port}").geturl()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def start(self) -> None:
        self._thread.start()
        assert self._listening.wait(5), "the proxy does not listen"

    def close(self) -> None:
        """Cut what is open and end the thread."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._closing.set)
            self._thread.join(5)
            assert not self._thread.is_alive(), "the proxy does not end"

    # -- faults --------------------------------------------------------------------------------------------------

    def delay(self, seconds: float) -> None:
        """From now on every message takes this much longer, in each direction; 0 heals."""
        self._delay_s = seconds

    def reset(self) -> None:
        """RST to every connection that is open now; new ones work."""
        self._call(lambda: [link.reset() for link in list(self._links)])

    def blackhole(self) -> None:
        """From now on bytes vanish both ways while connections stay open, those made meanwhile too."""
        self._swallow = True

    def restore(self) -> None:
        """New connections work again. One that lost bytes stays silent to its client; Redis learns that it is gone."""
        self._call(self._restore)

    def _restore(self) -> None:
        self._swallow = False
        for link in self._links:
            if link.swallowing:
                link.server.close()

    def drop_pushes(self, probability: float, chooser: random.Random | None = None) -> None:
        """From now on each pub/sub message gets lost with this probability; replies and confirmations never do."""
        self._drop = probability
        self._random = chooser or self._random

    def hold_when(self, pattern: bytes) -> Held:
        """Stop the next command that contains `pattern`, and what follows it on its connection, until `release`."""
        held = Held(pattern)
        self._held.append(held)
        return held

    def release(self, held: Held) -> None:
        """Let a held command go on; one that has not come yet will not be stopped."""
        with contextlib.suppress(ValueError):
            self._held.remove(held)
        self._call(held.release)

    def after_commands(self, n: int, action: Callable[[], object], *, mentioning: bytes) -> CrashPoint:
        """Call `action` from the proxy's thread once the n-th command that contains `mentioning` was forwarded."""
        point = CrashPoint(n, action, mentioning)
        self._crash_points.append(point)
        return point

    def heal(self) -> None:
        """No fault from now on; a connection that lost bytes is cut, one that waits goes on."""
        self._delay_s, self._drop = 0.0, 0.0
        self._crash_points.clear()
        for held in list(self._held):
            self.release(held)
        self._call(lambda: [link.reset() for link in list(self._links) if link.swallowing])
        self.restore()

    def _call(self, action: Callable[[], object]) -> None:
        """In the loop's thread, done on return."""
        if threading.current_thread() is self._thread:
            action()
            return
        done = threading.Event()
        self._loop.call_soon_threadsafe(lambda: (action(), done.set()))
        assert done.wait(5), "the proxy does not answer"

    # -- the loop ------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        with contextlib.closing(self._loop):
            self._loop.run_until_complete(self._serve())

    async def _serve(self) -> None:
        server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        self._listening.set()
        await self._closing.wait()
        server.close()
        for link in list(self._links):
            link.reset()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            from_server, to_server = await asyncio.open_connection("127.0.0.1", self._target.port)
        except OSError:  # Redis is down: its clients see that
            _reset_on_close(writer)
            writer.transport.abort()
            return
        link = Link(writer, to_server)
        self._links.add(link)
        try:
            await asyncio.gather(self._commands(link, reader), self._replies(link, from_server))
        finally:
            self._links.discard(link)
            writer.close()
            to_server.close()

    async def _commands(self, link: Link, reader: asyncio.StreamReader) -> None:
        buffer = bytearray()
        with contextlib.suppress(OSError):
            while data := await reader.read(CHUNK_BYTES):
                buffer += data
                if self._lost(link):
                    buffer.clear()
                elif self._delay_s:
                    await asyncio.sleep(self._delay_s)
                for command in take_messages(buffer):
                    await self._command(link, command)
        if not self._lost(link):
            link.server.close()

    async def _command(self, link: Link, command: bytes) -> None:
        held = next((held for held in self._held if held.pattern in command), None)
        if held is not None:
            self._held.remove(held)
            link.held = held
            await held.wait(command)
        if link.crashed or self._lost(link):
            return
        link.server.write(command)
        await link.server.drain()
        for point in self._crash_points:
            if point.forwarded(command):
                for open_link in self._links:
                    open_link.crashed = True

    async def _replies(self, link: Link, reader: asyncio.StreamReader) -> None:
        buffer = bytearray()
        with contextlib.suppress(OSError):
            while data := await reader.read(CHUNK_BYTES):
                buffer += data
                if self._lost(link):
                    buffer.clear()
                elif self._delay_s:
                    await asyncio.sleep(self._delay_s)
                link.client.write(b"".join(self._kept(take_messages(buffer))))
                await link.client.drain()
        if not self._lost(link):
            link.client.close()

    def _lost(self, link: Link) -> bool:
        """Whether bytes that came now on this link vanish."""
        link.swallowing = link.swallowing or self._swallow
        return link.swallowing

    def _kept(self, replies: list[bytes]) -> Iterator[bytes]:
        for reply in replies:
            if self._drop and _is_push(reply) and self._random.random() < self._drop:
                self.num_dropped += 1
            else:
                yield reply


def _is_push(reply: bytes) -> bool:
    """A published message, not a confirmation, a PONG or another reply."""
    after_count = reply.find(b"\r\n") + 2
    return reply[:1] == b"*" and reply.startswith(_PUSHES, after_count)
