"""The front ends' side of a request: accept it, queue it again when it was lost, cancel it.

A caller may repeat every call after a lost reply: a request id is accepted once.
"""

import contextlib
import logging
from typing import Self

from redis import Redis

from services.chat.charges import estimate
from services.chat.journal import Created, Head, Journal
from services.chat.moderation import FinishedAnswer, Moderator, Verdict
from services.chat.queue import Limits, RequestQueue
from services.chat.quotas import Quotas
from services.connection.redis_disk import RedisDisk
from services.errors import Busy, Gone, InvalidRequest, Unavailable, UnknownModel
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
        limits: Limits = Limits(),  # noqa: B008  # it is frozen
        answer_ttl_s: int = 86_400,
        lease_s: float = 3.0,
        disk: RedisDisk | None = None,
        quotas: Quotas | None = None,
        moderator: Moderator | None = None,
    ) -> None:
        self._redis = redis
        self.keys = keys
        self.journal = Journal(redis, keys, ttl_s=answer_ttl_s)
        self._moderator = moderator
        self.quotas = quotas or Quotas(redis, keys, wait_s=limits.wait_s)
        self._limits = limits
        self.interrupted_s = max(2.5, 0.85 * lease_s)  # owners renew, and say that they live, every third of a lease
        self._disk = disk or RedisDisk(None)

    @classmethod
    def from_settings(cls, redis: Redis, settings: Settings) -> Self:
        return cls(
            redis,
            Keys(settings.namespace),
            limits=Limits.from_settings(settings),
            answer_ttl_s=settings.answer_ttl_s,
            lease_s=settings.lease_s,
            disk=RedisDisk.of(settings.redis_url, settings.state_dir),
            quotas=Quotas.from_settings(redis, settings),
            moderator=Moderator.from_settings(settings),
        )

    def queue(self, model: str) -> RequestQueue:
        return RequestQueue(self._redis, self.keys, model)

    def submit(self, request: ChatRequest, address: str = "", note: bytes = b"") -> None:
        """Accept a request, once for each id. Raises UnknownModel, Conflict, Busy, InvalidRequest or Unavailable.

        `address` is the internet address where it comes from, if it came from there. `note` is kept with the answer.
        """
        self._check_disk(request.rid)
        if not self._redis.sismember(self.keys.models, request.model):
            known = sorted(name.decode() for name in self._redis.smembers(self.keys.models))
            raise UnknownModel(f"no worker serves {request.model!r}; served: {', '.join(known) or 'none yet'}")
        verdict = self._verdict(request)
        self._accept(request, self.journal.create(request, note=note, verdict=verdict), self._limits, address)

    def _verdict(self, request: ChatRequest) -> str:
        """Why the request is flagged; empty if it is not. What was accepted is not judged again."""
        if self._moderator is None or self.journal.head(request.rid) is not None:
            return ""
        return _flagged(self._moderator.judge(request), request.rid, request.user)

    def judgement(self, answer: FinishedAnswer) -> dict[str, str]:
        """Why the moderation flagged the `question` and the `answer`; neither is there where it did not."""
        if self._moderator is None:
            return {}
        on_answer = _flagged(self._moderator.judge_answer(answer), answer.rid, answer.user)
        verdicts = {"question": self.journal.verdict(answer.rid), "answer": on_answer}
        return {stage: verdict for stage, verdict in verdicts.items() if verdict}

    def _check_disk(self, rid: str) -> None:
        """Refuse what would be new to a full disk; a repeat of what was accepted is not."""
        try:
            self._disk.check()
        except Unavailable:
            if self.journal.head(rid) is None:
                raise

    def redrive(self, request: ChatRequest, redrive_of: str) -> None:
        """Accept a dead request again, under a new id. It was accepted once, so no limit refuses it."""
        self._accept(request, self.journal.create(request, redrive_of=redrive_of), None)

    def _accept(self, request: ChatRequest, created: Created, limits: Limits | None, address: str = "") -> None:
        if created.status != "new":
            return
        try:
            weight = self.quotas.reserve(request, created.submit, force=limits is None).weight
            self._enqueue(request, request.encode(), created.epoch, limits, address, weight)
        except (Busy, InvalidRequest):
            self.quotas.release(request, created.submit)
            self.journal.discard(request.rid, created)
            raise

    def requeue(self, head: Head, payload: bytes) -> None:
        """Queue a lost request again. It was accepted once, so no limit refuses one that has run."""
        request = ChatRequest.decode(payload)
        try:
            limits, weight = None if head.epoch else self._limits, self.quotas.heeded(request.user).weight
            self._enqueue(request, payload, head.epoch, limits, weight=weight)
        except Busy:
            return  # never begun and the queue is full: the next audit tries again
        log.info("queued again", extra={"rid": request.rid})

    def _enqueue(
        self,
        request: ChatRequest,
        payload: bytes,
        base: int,
        limits: Limits | None,
        address: str = "",
        weight: float = 1.0,
    ) -> None:
        self.queue(request.model).enqueue(
            request.rid,
            request.user,
            payload,
            priority=request.priority,
            base=base,
            address=address,
            limits=limits,
            expected=estimate(request),
            weight=weight,
        )

    def audit(self, rid: str, head: Head, num_absent: int, payload: bytes = b"") -> int:
        """Queue a request again that was lost in its queue, and end one that waited too long.

        Lost is what has not ended and is absent in two audits in a row; `num_absent` is what the last one returned.
        `payload` is the caller's copy, in case Redis has lost its own.
        """
        if head.ended:
            return num_absent
        if self.queue(head.model).holds(rid):
            if head.epoch == 0:
                with contextlib.suppress(Gone):  # Redis lost it since: the next look finds it missing
                    self.expire(rid, head)
            return 0
        payload = head.payload or payload
        if num_absent == 0 or not payload:
            return num_absent + 1
        self.requeue(head, payload)
        return 0

    def expire(self, rid: str, head: Head) -> None:
        """End a request that waited past its deadline. A worker does this too, if one comes."""
        if self.journal.expire(rid, head.user, self._limits.wait_s):
            self.queue(head.model).withdraw(rid, head.user, "expired")
            self.quotas.look(head.user)
            log.info("expired", extra={"rid": rid})

    def cancel(self, rid: str, user: str) -> str:
        """End a request at any stage; returns its final status. Raises Gone or Forbidden."""
        status, model = self.journal.cancel(rid, user)
        if not self.queue(model).withdraw(rid, user):
            self._redis.publish(self.keys.control, f"cancel {rid}")  # saves its worker a step; nothing depends on it
        self.quotas.look(user)
        return status

    def forget(self, rid: str, user: str) -> None:
        """Take the text and the note of an ended answer away, and count its tokens before. Raises Gone or Forbidden."""
        self.quotas.look(user)
        self.journal.forget(rid, user)


def _flagged(verdict: Verdict, rid: str, user: str) -> str:
    """The verdict as it is kept; empty for a pass."""
    if verdict.kind == "pass":
        return ""
    reason = " ".join(verdict.reason.split())  # one record is one line
    log.warning("flagged: %s", reason, extra={"rid": rid, "user": user})
    return f"{verdict.kind}: {verdict.reason}"
