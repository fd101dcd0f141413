"""All answers that one process follows: live events in, missing ones fetched, each follower called when there is more.

It holds one subscription for all answers (in a cluster: one to each node) and one `Answer` per request, however many
follow it. The web app has one feed in greenlets, `client.py` one in threads for each answer; `spawn` starts them.
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

from services.chat.answer import Answer
from services.chat.follower import Follower
from services.chat.reader import WaitingState
from services.chat.requests import Requests
from services.connection.cluster import owner_of
from services.connection.subscription import Subscription
from services.errors import ChatServerError, Forbidden, ProtocolError
from services.logs import about
from services.wire.messages import ChatRequest, Event

log = logging.getLogger("chatserver.feed")

TICK_S = 0.25
POSITION_S = 1.0
RESUBSCRIBE_S = 0.25
NUM_POLLS = 16  # at once: each holds a connection, and those that submit need some of the pool's too
FAIR_REPLIES = 128  # read from Redis before the other greenlets get a turn


@dataclass
class Channel:
    """One answer, who follows it, and where its live events were asked for."""

    name: str
    answer: Answer
    followers: set[Follower] = field(default_factory=set)
    live: Subscription | None = None
    polling: threading.Lock = field(default_factory=threading.Lock)  # one poll at a time

    def changed(self) -> None:
        for follower in list(self.followers):  # one that is called may find its reader dead, and leave
            follower.changed()


class AnswerFeed:
    """Follows requests. `follow` and `leave` may be called from any thread or greenlet."""

    def __init__(
        self,
        requests: Requests,
        redis: Redis,
        *,
        spawn: Callable[..., Any],
        waiting_for: Callable[[str], WaitingState] = lambda model: "queued",
    ) -> None:
        self._requests = requests
        self._redis = redis
        self._spawn = spawn
        self._waiting_for = waiting_for  # what the requests of a model wait for
        self._subscriptions: dict[Redis, Subscription] = {}  # by the server that is heard
        self._lost_servers: set[Redis] = set()  # of which the log says that their subscription was lost
        self._channels: dict[str, Channel] = {}  # by name
        self._table = threading.Lock()  # of the channels and their followers
        self._polls = threading.Semaphore(NUM_POLLS)
        self._stopping = threading.Event()

    def start(self) -> None:
        """Begin to listen; until then nothing is told."""
        self._spawn(self._resubscribe)
        self._spawn(self._tick)
        self._spawn(self._positions)

    def stop(self) -> None:
        self._stopping.set()

    # -- what front ends ask -------------------------------------------------------------------------------------

    def follow(
        self,
        rid: str,
        user: str,
        changed: Callable[[], None],
        *,
        offset: int = 0,
        nonce: str = "",
        request: ChatRequest | None = None,
        note: bytes = b"",
    ) -> Follower:
        """Follow an answer from a cursor on, until `leave`. `request` is the caller's own, just accepted with its note.

        Raises Forbidden for another user's request; redis errors pass through.
        """
        known = self._channels.get(self._requests.keys.events(rid))
        ours = request is not None or (known is not None and known.answer.user == user) or self._owns(user, rid)
        with self._table:
            channel, stranger = self._channel(rid, user, ours=ours)
            if request is not None:
                channel.answer.submitted(request, note)
            follower = Follower(channel.answer, changed, offset, nonce)
            is_new = not channel.followers
            channel.followers.add(follower)
        if stranger is not None:
            self._give_up(stranger, _forbidden(rid))
        if is_new:
            self._subscribe(channel)
        else:
            self._poll_if_due(channel, time.monotonic())
        changed()
        return follower

    def leave(self, follower: Follower) -> None:
        """The follower is told nothing more; the last one ends the subscription. The request goes on."""
        follower.close()
        with self._table:
            name = self._requests.keys.events(follower.rid)
            channel = self._channels.get(name)
            if channel is None or follower not in channel.followers:
                return
            channel.followers.discard(follower)
            if channel.followers:
                return
            del self._channels[name]
        try:
            if channel.live is not None and not channel.live.closed:
                channel.live.remove(name)
        except RedisError as error:
            log.debug("unsubscribe: %s", error, extra={"rid": follower.rid})

    def _owns(self, user: str, rid: str) -> bool:
        """Whether a request is this user's; False when it is unknown. Raises Forbidden when it is another's."""
        head = self._requests.journal.head(rid)
        if head is not None and head.user != user:
            raise _forbidden(rid)
        return head is not None

    def _channel(self, rid: str, user: str, *, ours: bool) -> tuple[Channel, Channel | None]:
        """The user's channel, and that of a stranger who watched this id before its owner used it."""
        name = self._requests.keys.events(rid)
        found = self._channels.get(name)
        if found is not None and found.answer.user == user:
            return found, None
        if found is not None and not ours:
            raise _forbidden(rid)
        answer = Answer(self._requests, rid, user, time.monotonic())
        channel = self._channels[name] = Channel(name, answer)
        return channel, found

    # -- live events ---------------------------------------------------------------------------------------------

    def _subscribe(self, channel: Channel) -> bool:
        """Ask for the channel where it lives; its confirmation makes the answer read the journal. False: not now."""
        try:
            server = owner_of(self._redis, channel.name)
            fresh = Subscription(self._redis, server)
            live = self._subscriptions.setdefault(server, fresh)
            if live is fresh:
                self._spawn(self._listen, server, live, channel.name)
            else:
                self._add(live, channel.name)
        except RedisError as error:
            self._unreachable(channel, error)
            return False
        channel.live = live
        return True

    def _add(self, live: Subscription, name: str) -> None:
        """Ask for a channel. Its last follower may have gone, and could not take back what was not asked yet."""
        live.add(name)
        if name not in self._channels:
            live.remove(name)

    def _resubscribe(self) -> None:
        """Channels whose subscription was lost, or that live elsewhere now, are asked for anew."""
        while not self._stopping.wait(RESUBSCRIBE_S):
            channels = list(self._channels.values())
            random.shuffle(channels)  # those of a node that does not answer must not keep the others waiting
            for channel in channels:
                if (channel.live is None or channel.live.closed) and not self._subscribe(channel):
                    break

    def _listen(self, server: Redis, live: Subscription, name: str) -> None:
        """Hear one server, beginning with this channel, until the subscription is lost."""
        try:
            self._add(live, name)
            while not self._stopping.is_set():
                for _ in range(FAIR_REPLIES):
                    heard = live.hear(1.0)
                    if heard is None:
                        break
                    self._found(server)
                    self._heard(live, *heard)
                time.sleep(0)
        except RedisError as error:
            if not self._stopping.is_set():
                self._lost(server, live, error)
        finally:
            del self._subscriptions[server]
            live.close()

    def _found(self, server: Redis) -> None:
        """A server is heard: once a line, if it was lost."""
        if server in self._lost_servers:
            self._lost_servers.discard(server)
            log.info("subscribed again")

    def _lost(self, server: Redis, live: Subscription, error: RedisError) -> None:
        """A server is not heard; while it is away every attempt ends here, and the first alone is logged."""
        if server not in self._lost_servers:
            self._lost_servers.add(server)
            log.warning("the subscription was lost (%s); subscribing again", error)
        for channel in list(self._channels.values()):
            if channel.live is live:
                self._unreachable(channel, error)

    def _heard(self, live: Subscription, kind: bytes, name: bytes, data: bytes) -> None:
        channel, now = self._channels.get(name.decode()), time.monotonic()
        if channel is None:
            return
        if kind == b"smessage":
            _live(channel.answer, data, now)
            channel.changed()
        elif kind == b"ssubscribe":
            channel.answer.resubscribed()
        elif channel.live is live:
            channel.live = None  # the channel lives elsewhere now
        self._poll_if_due(channel, now)

    # -- what live events did not tell ---------------------------------------------------------------------------

    def _poll_if_due(self, channel: Channel, now: float) -> None:
        if channel.answer.due(now) and channel.polling.acquire(blocking=False):
            try:
                self._spawn(self._poll, channel)
            except BaseException:
                channel.polling.release()
                raise

    def _poll(self, channel: Channel) -> None:
        """Let the answer fetch what it wants, until it wants nothing."""
        answer = channel.answer
        with about(rid=answer.rid):
            try:
                while self._channels.get(channel.name) is channel and answer.due(time.monotonic()):
                    with self._polls:
                        answer.poll(time.monotonic())
                    channel.changed()
            except RedisError as error:
                self._unreachable(channel, error)
            except ChatServerError as error:
                self._give_up(channel, error)
            except Exception:  # whatever it is, the next poll would meet it again
                log.exception("an answer cannot be followed")
                self._give_up(channel, ChatServerError("this answer cannot be followed; the log says why"))
            finally:
                channel.polling.release()

    def _tick(self) -> None:
        """Silence is noticed here: heads, audits, reads that failed."""
        while not self._stopping.wait(TICK_S):
            now = time.monotonic()
            for channel in list(self._channels.values()):
                if channel.answer.silent(now):
                    channel.changed()
                self._poll_if_due(channel, now)

    def _positions(self) -> None:
        """Once a second, per model: where the waiting requests stand."""
        while not self._stopping.wait(POSITION_S):
            waiting = [channel for channel in list(self._channels.values()) if channel.answer.waits]
            for model in {channel.answer.model for channel in waiting}:
                try:
                    places, state = self._requests.queue(model).positions(), self._waiting_for(model)
                except RedisError as error:
                    log.debug("positions of %s: %s", model, error)
                    continue
                for channel in waiting:
                    if channel.answer.model == model and channel.answer.rid in places:
                        channel.answer.queued(state, *places[channel.answer.rid])
                        channel.changed()

    @staticmethod
    def _unreachable(channel: Channel, error: RedisError) -> None:
        log.debug("no answer from Redis: %s", error, extra={"rid": channel.answer.rid})
        channel.answer.unreachable(error, time.monotonic())
        channel.changed()

    @staticmethod
    def _give_up(channel: Channel, error: ChatServerError) -> None:
        channel.answer.give_up(error.code, error.message)
        channel.changed()


def _live(answer: Answer, data: bytes, now: float) -> None:
    try:
        answer.live(Event.decode(data), now)
    except ProtocolError as error:
        log.warning("a live event is not readable: %s", error, extra={"rid": answer.rid})
        answer.resubscribed()  # reading the journal ends this one answer with the error's code


def _forbidden(rid: str) -> Forbidden:
    return Forbidden(f"request {rid} belongs to another user")
