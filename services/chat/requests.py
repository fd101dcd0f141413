"""The front ends' side of a request: accept it, queue it again when it was lost, cancel it.

A caller may repeat every call after a lost reply: a request id is accepted once.
"""

import logging
from typing import Self

from redis import Redis

from services.chat.journal import Head, Journal
from services.chat.queue import RequestQueue
from services.connection.redis_disk import RedisDisk
from services.errors import Busy, Unavailable, UnknownModel
from services.settings import Settings
from services.wire.keys import Keys
from services.wire.messages import ChatRequest

log = logging.getLogger("chatserver.requests")


class Requests:
    """The requests of one installation, as front ends use them."""

    def __init__(
        self,
        redis: Redis,
        keys: Keys,
        *,
        max_queue: int = 1000,
        max_user_requests: int = 64,
        answer_ttl_s: int = 86_400,
        queue_deadline_s: float = 900.0,
        disk: RedisDisk | None = None,
    ) -> None:
        self._redis = redis
        self.keys = keys
        self.journal = Journal(redis, keys, ttl_s=answer_ttl_s)
        self._max_queue = max_queue
        self._max_user = max_user_requests
        self._deadline_s = queue_deadline_s
        self._disk = disk or RedisDisk(None)

    @classmethod
    def from_settings(cls, redis: Redis, settings: Settings) -> Self:
        return cls(
            redis,
            Keys(settings.namespace),
            max_queue=settings.max_queue,
            max_user_requests=settings.max_user_requests,
            answer_ttl_s=settings.answer_ttl_s,
            queue_deadline_s=settings.queue_deadline_s,
            disk=RedisDisk.of(settings.redis_url, settings.state_dir),
        )

    def queue(self, model: str) -> RequestQueue:
        return RequestQueue(self._redis, self.keys, model)

    def submit(self, request: ChatRequest) -> None:
        """Accept a request, once for each id. Raises UnknownModel, Conflict, Busy, UserLimit or Unavailable."""
        self._check_disk(request.rid)
        if not self._redis.sismember(self.keys.models, request.model):
            known = sorted(name.decode() for name in self._redis.smembers(self.keys.models))
            raise UnknownModel(f"no worker serves {request.model!r}; served: {', '.join(known) or 'none yet'}")
        self._accept(request, *self.journal.create(request))

    def _check_disk(self, rid: str) -> None:
        """Refuse what would be new to a full disk; a repeat of what was accepted is not."""
        try:
            self._disk.check()
        except Unavailable:
            if self.journal.head(rid) is None:
                raise

    def redrive(self, request: ChatRequest, redrive_of: str) -> None:
        """Accept a dead request again, under a new id. It was accepted once, so no limit refuses it."""
        status, epoch = self.journal.create(request, redrive_of=redrive_of)
        self._accept(request, status, epoch, force=True)

    def _accept(self, request: ChatRequest, status: str, epoch: int, *, force: bool = False) -> None:
        if status != "new":
            return
        try:
            self._enqueue(request, request.encode(), base=epoch, force=force)
        except Busy:
            self.journal.discard(request.rid)
            raise

    def requeue(self, head: Head, payload: bytes) -> None:
        """Queue a lost request again. It was accepted once, so no limit refuses one that has run."""
        request = ChatRequest.decode(payload)
        try:
            self._enqueue(request, payload, base=head.epoch, force=head.epoch > 0)
        except Busy:
            return  # never begun and the queue is full: the next audit tries again
        log.info("queued again", extra={"rid": request.rid})

    def _enqueue(self, request: ChatRequest, payload: bytes, *, base: int, force: bool) -> None:
        self.queue(request.model).enqueue(
            request.rid,
            request.user,
            payload,
            priority=request.priority,
            base=base,
            force=force,
            max_queue=self._max_queue,
            max_user=self._max_user,
        )

    def expire(self, rid: str, head: Head) -> None:
        """End a request that waited past its deadline. A worker does this too, if one comes."""
        if self.journal.expire(rid, head.user, self._deadline_s):
            self.queue(head.model).withdraw(rid, head.user, "expired")
            log.info("expired", extra={"rid": rid})

    def cancel(self, rid: str, user: str) -> str:
        """End a request at any stage; returns its final status. Raises Gone or Forbidden."""
        status, model = self.journal.cancel(rid, user)
        if not self.queue(model).withdraw(rid, user):
            self._redis.publish(self.keys.control, f"cancel {rid}")  # saves its worker a step; nothing depends on it
        return status
