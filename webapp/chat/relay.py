"""One relay per web process: answers from the feed to the sockets that watch them.

A socket is sent slices of the text that the feed has, at most every few milliseconds, at most a window ahead of what
the client acknowledged, and nothing while enough bytes wait for it already; so tokens are coalesced, and a slow client
costs an offset, not a buffer.

All of it runs in greenlets (or threads) of one process; `spawn` comes from the web server.
"""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from services.arena.blind import is_blind
from services.chat.feed import AnswerFeed
from services.chat.follower import Follower
from services.chat.reader import Done, ReaderEvent, Rewind, Text
from services.errors import Busy
from services.wire.messages import ANSWER, ChatRequest
from webapp.chat.blind import blinded

log = logging.getLogger("chatserver.relay")

WAKE_S = 0.25  # at the latest, to see that the process ends
MAX_WATCHES = 128  # per socket
SLICE_CHARS = 16_384  # of one message

Emit = Callable[[str, str, dict[str, Any]], bool]
"""emit(socket id, event name, payload) → whether the socket takes more now; if not, `drained` says when"""


@dataclass
class View:
    """One socket's sight of one answer: what its client has acknowledged, and when it was sent text last."""

    follower: Follower
    acked: int
    sent_at: float = 0.0


class Relay:
    """Sends answers to sockets. `watch`, `received` and `forget` may be called from any greenlet."""

    def __init__(
        self,
        feed: AnswerFeed,
        emit: Emit,
        *,
        interval_s: float,
        window_chars: int,
        spawn: Callable[..., Any],
        ended: Callable[[str], object] = lambda rid: None,  # hears of each answer that was sent to its end
    ) -> None:
        self._feed = feed
        self._emit = emit
        self._interval_s = interval_s
        self._window = window_chars
        self._spawn = spawn
        self._ended = ended
        self._views: dict[str, dict[str, View]] = {}  # socket id → request id → view
        self._full: set[str] = set()  # sockets that take nothing more at present
        self._dirty: set[tuple[str, str]] = set()
        self._woken = threading.Event()  # something is dirty
        self._stopping = False

    def start(self) -> None:
        """Begin to send; until then nothing is relayed."""
        self._spawn(self._send)

    def stop(self) -> None:
        self._stopping = True

    # -- what sockets ask ----------------------------------------------------------------------------------------

    def watch(
        self, sid: str, rid: str, user: str, *, offset: int = 0, nonce: str = "", request: ChatRequest | None = None
    ) -> None:
        """Send this answer to a socket from its cursor on. Raises Forbidden for another user's request."""
        self.check_room(sid, rid)
        changed = partial(self._touch, (sid, rid))
        follower = self._feed.follow(rid, user, changed, offset=offset, nonce=nonce, request=request)
        before = self._views.get(sid, {}).get(rid)
        self._views.setdefault(sid, {})[rid] = View(follower, acked=offset)
        if before is not None:
            self._feed.leave(before.follower)
        changed()

    def check_room(self, sid: str, rid: str) -> None:
        """Whether a socket may watch one more answer; to be asked before a request is accepted. Raises Busy."""
        watched = self._views.get(sid, {})
        if rid not in watched and len(watched) >= MAX_WATCHES:
            raise Busy(f"this socket watches {MAX_WATCHES} answers; unwatch some", retry_after_s=5)

    def unwatch(self, sid: str, rid: str) -> None:
        """A socket is not interested any more. The request goes on."""
        view = self._views.get(sid, {}).pop(rid, None)
        if view is not None:
            self._feed.leave(view.follower)

    def forget(self, sid: str) -> None:
        """A socket is gone."""
        self._full.discard(sid)
        for view in self._views.pop(sid, {}).values():
            self._feed.leave(view.follower)

    def received(self, sid: str, rid: str, offset: int) -> None:
        """A client has applied the text up to `offset`: its window moves."""
        view = self._views.get(sid, {}).get(rid)
        if view is not None:
            view.acked = max(view.acked, min(offset, view.follower.offset))
            self._touch((sid, rid))

    def drained(self, sid: str) -> None:
        """A socket that was full takes more."""
        self._full.discard(sid)
        for rid in self._views.get(sid, {}):
            self._touch((sid, rid))

    # -- to the sockets ------------------------------------------------------------------------------------------

    def _touch(self, watched: tuple[str, str]) -> None:
        self._dirty.add(watched)
        if not self._woken.is_set():
            self._woken.set()

    def _send(self) -> None:
        """The one sender: a slice to each socket that has text to come, at once after silence, else at intervals.

        It rests a little between its rounds, so that what a step of the engine publishes leaves in one of them.
        """
        while not self._stopping:
            self._woken.wait(WAKE_S)
            self._woken.clear()
            dirty, self._dirty = self._dirty, set()
            now = time.monotonic()
            for watched in dirty:
                sid, rid = watched
                view = self._views.get(sid, {}).get(rid)
                if view is None or sid in self._full:
                    continue
                if now - view.sent_at < self._interval_s:
                    self._touch(watched)
                else:
                    self._send_view(sid, view, now)
            time.sleep(self._interval_s / 4)

    def _send_view(self, sid: str, view: View, now: float) -> None:
        follower = view.follower
        while sid not in self._full:
            event = follower.next(min(view.acked + self._window, follower.offset + SLICE_CHARS))
            if event is None:
                return
            if not self._tell(sid, view, event):
                self._full.add(sid)
            if isinstance(event, Text):
                view.sent_at = now
                if follower.told_all and not follower.has_end:
                    return  # nothing can follow but with another change
            elif isinstance(event, Done):
                self._delivered(sid, view, event)

    def _tell(self, sid: str, view: View, event: ReaderEvent) -> bool:
        """Send one event; whether the socket takes more."""
        rid = view.follower.rid
        if isinstance(event, Text):
            payload = {"id": rid, "offset": event.offset, "nonce": event.nonce, "text": event.text}
            if event.part != ANSWER:
                payload["part"] = event.part
            return self._emit(sid, "tokens", payload)
        if isinstance(event, Rewind):
            view.acked = min(view.acked, event.offset)
            return self._emit(sid, "rewind", {"id": rid, "offset": event.offset, "nonce": event.nonce})
        known = {name: value for name, value in vars(event).items() if value is not None}
        told = blinded(known) if is_blind(rid) else known
        return self._emit(sid, "done" if isinstance(event, Done) else "status", {"id": rid, **told})

    def _delivered(self, sid: str, view: View, done: Done) -> None:
        log.info("delivered", extra={"rid": view.follower.rid, "sid": sid, **view.follower.account(done)})
        self.unwatch(sid, view.follower.rid)
        self._ended(view.follower.rid)
