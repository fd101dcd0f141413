"""One relay per web process: answers from Redis to the sockets that watch them.

It holds one subscription for all watched requests (in a cluster: one to each node) and one Follower per request,
however many sockets watch it. A socket is sent slices of the text that the follower has, at most every few
milliseconds and at most a window ahead of what the client acknowledged; so tokens are coalesced, and a slow client
costs an offset, not a buffer.

All of it runs in greenlets (or threads) of one process; `spawn` and `sleep` come from the web server.
"""

import logging
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from redis import Redis
from redis.exceptions import RedisError

from services.chat.follower import Follower
from services.chat.reader import Done, ReaderEvent, Rewind, Status
from services.chat.requests import Requests
from services.connection.cluster import owner_of
from services.connection.subscription import Subscription
from services.errors import Busy, ChatServerError, Forbidden, ProtocolError
from services.logs import about
from services.wire.messages import ChatRequest, Event

log = logging.getLogger("chatserver.relay")

TICK_S = 0.25
POSITION_S = 1.0
RESUBSCRIBE_S = 0.25
MAX_WATCHES = 128  # per socket
NUM_POLLS = 16  # at once: each holds a connection, and those that submit need some of the pool's too
FAIR_REPLIES = 128  # read from Redis before the other greenlets get a turn

Emit = Callable[[str, str, dict[str, Any]], None]
"""emit(socket id, event name, payload)"""


@dataclass
class View:
    """One socket's place in one answer. `sent` is None until its cursor was judged against the journal."""

    sid: str
    offset: int
    nonce: str
    sent: int | None = None
    acked: int = 0


@dataclass
class Watch:
    """One followed request and the sockets that watch it."""

    follower: Follower
    channel: str
    live: Subscription | None = None  # where its channel was asked for
    views: dict[str, View] = field(default_factory=dict)
    status: Status | None = None
    done: Done | None = None
    polling: bool = False
    sent_at: float = 0.0


class Relay:
    """Follows requests for sockets. `watch`, `received` and `forget` may be called from any greenlet."""

    def __init__(
        self,
        requests: Requests,
        redis: Redis,
        emit: Emit,
        *,
        interval_s: float,
        window_chars: int,
        spawn: Callable[..., Any],
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._requests = requests
        self._redis = redis
        self._emit = emit
        self._interval_s = interval_s
        self._window = window_chars
        self._spawn = spawn
        self._sleep = sleep
        self._subscriptions: dict[Redis, Subscription] = {}  # by the server that is heard
        self._watches: dict[str, Watch] = {}
        self._watched: dict[str, set[str]] = {}  # socket id → what it watches
        self._dirty: set[str] = set()
        self._woken = threading.Event()  # something is dirty
        self._polls = threading.Semaphore(NUM_POLLS)
        self._stopping = False

    def start(self) -> None:
        """Begin to listen; until then nothing is relayed."""
        self._spawn(self._resubscribe)
        self._spawn(self._send)
        self._spawn(self._tick)
        self._spawn(self._positions)

    def stop(self) -> None:
        self._stopping = True

    # -- what sockets ask ----------------------------------------------------------------------------------------

    def watch(
        self, sid: str, rid: str, user: str, *, offset: int = 0, nonce: str = "", request: ChatRequest | None = None
    ) -> None:
        """Send this answer to a socket from its cursor on. Raises Forbidden for another user's request."""
        self.check_room(sid, rid)
        watch = self._watches.get(rid)
        if watch is None or watch.follower.user != user:
            head = self._requests.journal.head(rid)
            if head is not None and head.user != user:
                raise Forbidden(f"request {rid} belongs to another user")
            if watch is not None and head is not None:
                self._evict(rid, watch)
            follower = Follower(self._requests, rid, user, time.monotonic(), request=request)
            watch = self._watches.setdefault(rid, Watch(follower, self._requests.keys.events(rid)))
        if watch.follower.user != user:
            raise Forbidden(f"request {rid} belongs to another user")
        self._watched.setdefault(sid, set()).add(rid)
        watch.views[sid] = View(sid, offset, nonce, acked=offset)
        self._touch(rid)
        if len(watch.views) == 1:
            self._subscribe(watch)
        if watch.status is not None and not watch.done:
            self._emit_status(sid, rid, watch.status)

    def _evict(self, rid: str, watch: Watch) -> None:
        """End a watch that somebody began on an id before its owner used it."""
        for view in list(watch.views.values()):
            message = f"request {rid} belongs to another user"
            self._finish(rid, Done("failed", view.sent or view.offset, Forbidden.code, message, {}), watch, view)

    def check_room(self, sid: str, rid: str) -> None:
        """Whether a socket may watch one more answer; to be asked before a request is accepted. Raises Busy."""
        watched = self._watched.get(sid, set())
        if rid not in watched and len(watched) >= MAX_WATCHES:
            raise Busy(f"this socket watches {MAX_WATCHES} answers; unwatch some", retry_after_s=5)

    def unwatch(self, sid: str, rid: str) -> None:
        """A socket is not interested any more; the last one ends the subscription. The request goes on."""
        self._watched.get(sid, set()).discard(rid)
        watch = self._watches.get(rid)
        if watch is None or watch.views.pop(sid, None) is None or watch.views:
            return
        del self._watches[rid]
        try:
            if watch.live is not None and not watch.live.closed:
                watch.live.remove(watch.channel)
        except RedisError as error:
            log.debug("unsubscribe: %s", error, extra={"rid": rid})

    def forget(self, sid: str) -> None:
        """A socket is gone."""
        for rid in list(self._watched.get(sid, ())):
            self.unwatch(sid, rid)
        self._watched.pop(sid, None)

    def received(self, sid: str, rid: str, offset: int) -> None:
        """A client has applied the text up to `offset`: its window moves."""
        watch = self._watches.get(rid)
        view = watch.views.get(sid) if watch else None
        if view is not None and view.sent is not None:
            view.acked = max(view.acked, min(offset, view.sent))
            self._touch(rid)

    # -- from Redis ----------------------------------------------------------------------------------------------

    def _subscribe(self, watch: Watch) -> bool:
        """Ask for the channel where it lives; its confirmation makes the follower read the journal. False: not now."""
        try:
            server = owner_of(self._redis, watch.channel)
            fresh = Subscription(self._redis, server)
            live = self._subscriptions.setdefault(server, fresh)
            if live is fresh:
                self._spawn(self._listen, server, live, watch.channel)
            else:
                self._add(live, watch.channel)
        except RedisError as error:
            log.debug("subscribe: %s", error, extra={"rid": watch.follower.rid})
            return False
        watch.live = live
        return True

    def _add(self, live: Subscription, channel: str) -> None:
        """Ask for a channel. Who watched it may have gone meanwhile, and could not take back what was not asked yet."""
        live.add(channel)
        if self._rid_of(channel.encode()) not in self._watches:
            live.remove(channel)

    def _resubscribe(self) -> None:
        """Channels whose subscription was lost, or that live elsewhere now, are asked for anew."""
        while not self._stopping:
            self._sleep(RESUBSCRIBE_S)
            watches = list(self._watches.values())
            random.shuffle(watches)  # those of a node that does not answer must not keep the others waiting
            for watch in watches:
                if (watch.live is None or watch.live.closed) and not self._subscribe(watch):
                    break

    def _listen(self, server: Redis, live: Subscription, channel: str) -> None:
        """Hear one server, beginning with this channel, until the subscription is lost."""
        try:
            self._add(live, channel)
            while not self._stopping:
                for _ in range(FAIR_REPLIES):
                    heard = live.hear(1.0)
                    if heard is None:
                        break
                    self._heard(live, *heard)
                self._sleep(0)
        except RedisError as error:
            log.warning("the subscription was lost (%s); subscribing again", error)
        finally:
            del self._subscriptions[server]
            live.close()

    def _heard(self, live: Subscription, kind: bytes, channel: bytes, data: bytes) -> None:
        rid, now = self._rid_of(channel), time.monotonic()
        watch = self._watches.get(rid)
        if watch is None:
            return
        if kind == b"smessage":
            self._live(rid, watch, data, now)
        elif kind == b"ssubscribe":
            watch.follower.reader.resubscribed()
        elif watch.live is live:
            watch.live = None  # the channel lives elsewhere now
        self._poll_if_due(rid, watch, now)

    def _live(self, rid: str, watch: Watch, data: bytes, now: float) -> None:
        try:
            event = Event.decode(data)
        except ProtocolError as error:
            log.warning("a live event is not readable: %s", error, extra={"rid": rid})
            watch.follower.reader.resubscribed()  # reading the journal ends this one answer with the error's code
        else:
            self._digest(rid, watch, watch.follower.live(event, now))

    def _poll_if_due(self, rid: str, watch: Watch, now: float) -> None:
        if not watch.polling and watch.follower.due(now):
            watch.polling = True
            self._spawn(self._poll, rid, watch)

    @staticmethod
    def _rid_of(channel: bytes) -> str:
        text = channel.decode()
        return text[text.find("{") + 1 : text.rfind("}")]

    def _poll(self, rid: str, watch: Watch) -> None:
        """Let the follower fetch what it wants, until it wants nothing."""
        with about(rid=rid):
            try:
                while self._watches.get(rid) is watch and watch.follower.due(time.monotonic()):
                    with self._polls:
                        events = watch.follower.poll(time.monotonic())
                    self._digest(rid, watch, events)
            except RedisError as error:
                log.debug("poll: %s", error)
            except ChatServerError as error:
                self._digest(rid, watch, watch.follower.reader.gone(error.code, error.message))
            finally:
                watch.polling = False

    def _tick(self) -> None:
        """Silence is noticed here: heads, audits, reads that failed."""
        while not self._stopping:
            self._sleep(TICK_S)
            now = time.monotonic()
            for rid, watch in list(self._watches.items()):
                self._poll_if_due(rid, watch, now)

    def _positions(self) -> None:
        """Once a second, per model: where the waiting requests stand."""
        while not self._stopping:
            self._sleep(POSITION_S)
            waiting = [
                (rid, watch)
                for rid, watch in self._watches.items()
                if watch.follower.model and not watch.follower.reader.running and not watch.done
            ]
            for model in {watch.follower.model for _, watch in waiting}:
                try:
                    places = self._requests.queue(model).positions()
                except RedisError as error:
                    log.debug("positions of %s: %s", model, error)
                    continue
                for rid, watch in waiting:
                    if watch.follower.model == model and rid in places and not watch.follower.reader.running:
                        self._digest(rid, watch, [Status("queued", *places[rid])])

    # -- to the sockets ------------------------------------------------------------------------------------------

    def _digest(self, rid: str, watch: Watch, events: list[ReaderEvent]) -> None:
        """Statuses and rewinds go out at once; text waits for the next slice."""
        for event in events:
            if isinstance(event, Status):
                if event != watch.status:
                    watch.status = event
                    for sid in list(watch.views):
                        self._emit_status(sid, rid, event)
            elif isinstance(event, Rewind):
                for view in list(watch.views.values()):  # sending may find a socket dead, and forget it
                    self._rewind(rid, view, event.offset, event.nonce)
            elif isinstance(event, Done):
                watch.done = event
        self._touch(rid)

    def _emit_status(self, sid: str, rid: str, status: Status) -> None:
        payload: dict[str, Any] = {"id": rid, "state": status.state}
        if status.position is not None:
            payload["position"] = status.position
        if status.eta_s is not None:
            payload["eta_s"] = status.eta_s
        self._emit(sid, "status", payload)

    def _rewind(self, rid: str, view: View, offset: int, nonce: str) -> None:
        if view.sent is not None and view.sent > offset:
            view.sent, view.acked = offset, min(view.acked, offset)
            self._emit(view.sid, "rewind", {"id": rid, "offset": offset, "nonce": nonce})

    def _send(self) -> None:
        """The one sender: a slice to each socket that has text to come, at once after silence, else at intervals.

        It rests a little between its rounds, so that what a step of the engine publishes leaves in one of them.
        """
        while not self._stopping:
            self._woken.wait(TICK_S)
            self._woken.clear()
            dirty, self._dirty = self._dirty, set()
            now = time.monotonic()
            for rid in dirty:
                watch = self._watches.get(rid)
                if watch is None or not watch.follower.reader.ready:
                    continue
                if now - watch.sent_at < self._interval_s:
                    self._touch(rid)
                else:
                    self._send_watch(rid, watch, now)
            self._sleep(self._interval_s / 4)

    def _touch(self, rid: str) -> None:
        self._dirty.add(rid)
        self._woken.set()

    def _send_watch(self, rid: str, watch: Watch, now: float) -> None:
        reader = watch.follower.reader
        for view in list(watch.views.values()):
            if view.sent is None:
                keep = reader.trusted(view.offset, view.nonce)
                view.sent = view.offset
                self._rewind(rid, view, keep, reader.nonce)
                view.acked = view.sent
            text = reader.shown[view.sent : view.acked + self._window]
            if text:
                payload = {"id": rid, "offset": view.sent, "nonce": reader.nonce, "text": text}
                view.sent += len(text)
                watch.sent_at = now
                self._emit(view.sid, "tokens", payload)
            if watch.done is not None and view.sent == len(reader.shown):
                self._finish(rid, watch.done, watch, view)

    def _finish(self, rid: str, done: Done, watch: Watch, view: View) -> None:
        payload = {"status": done.status, "offset": done.offset, "code": done.code, "message": done.message}
        self._emit(view.sid, "done", {"id": rid, **payload, "usage": done.usage})
        told = {
            "status": done.status,
            "code": done.code,
            "tokens": done.usage.get("completion_tokens", 0),
            "chars": done.offset,
            "seconds": round(time.monotonic() - watch.follower.submitted_at, 3),  # since it was accepted
        }
        log.info("delivered", extra={"rid": rid, "sid": view.sid, **told})
        self.unwatch(view.sid, rid)
