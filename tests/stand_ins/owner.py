"""A worker by hand: it owns one answer and writes what a test tells it to. Used by tests of whoever reads answers."""

import redis

from services.chat.journal import Journal
from services.wire.keys import Keys
from services.wire.messages import ChatRequest, Event, Message


class Owner:
    """A worker by hand."""

    def __init__(self, client: redis.Redis, keys: Keys, rid: str, user: str = "ann") -> None:
        self.redis, self.rid = client, rid
        self.journal = Journal(client, keys)
        self.request = ChatRequest(rid, user, "m", (Message("user", "hi"),))
        self.journal.create(self.request)
        self.epoch, self.n = 0, 0

    def begin(self, nonce: str) -> None:
        self.nonce, self.epoch = nonce, self.epoch + 1
        rules = {"max_tries": 9, "max_begins": 20, "deadline_ms": 60_000}
        payload = self.request.encode()
        begun = self.journal.begin(self.request, payload, epoch=self.epoch, nonce=nonce, wid="w", **rules)
        self.n = begun.n  # type: ignore[union-attr]

    def say(self, text: str) -> None:
        event = Event("tokens", self.nonce, self.n, self.n, tuple(map(ord, text)), text)
        self.journal.load_append()
        reply = self.redis.execute_command(*self.journal.append_command(self.rid, self.epoch, event))
        self.n = self.journal.appended(reply)  # type: ignore[assignment]

    def finish(self) -> None:
        assert self.journal.finish(self.rid, self.epoch, Event("finished", self.nonce, self.n, self.n)) is None
