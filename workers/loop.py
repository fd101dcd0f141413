"""The worker's loop body, free of threads: entries and engine events in, journal writes out.

claim → begin → engine.submit → append (one pipeline for all running requests) → finish → ack. `workers/worker.py` feeds
it from threads; the model test feeds it from a scheduler. A redis error anywhere leaves every assignment as it was:
the caller reports it to `disconnected` and calls again.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol

from redis import Redis
from redis.exceptions import NoScriptError, ResponseError

from services.chat.journal import Journal
from services.chat.queue import RETRY_PLACE, SUSPECT_PLACE, Entry, Pending, RequestQueue
from services.errors import ChatServerError, EngineError, OutOfMemory
from services.logs import about
from services.wire.keys import HANDBACK, NAME, VERSION
from services.wire.messages import ChatRequest, Event
from workers import assignment
from workers.assignment import Assignment, Ending, Rules, Transcript
from workers.engine import ENGINE_LOST, Engine, EngineEvent, Sampling

log = logging.getLogger("chatserver.worker")

ENGINE_CODES = frozenset({EngineError.code, OutOfMemory.code})
BEAT_S = 2.0
RESCUE_S = 10.0


class AnswerText(Transcript, Protocol):
    """What the loop needs of `workers.answer.Answer`."""

    @property
    def matched_stop(self) -> bool: ...
    def push(self, token_id: int) -> str: ...
    def replay(self, token_ids: Sequence[int]) -> None: ...
    def finish(self) -> str: ...


@dataclass(frozen=True)
class Plan:
    """How to generate one answer: the rendered prompt, how to sample after it, and the text to come."""

    prompt_ids: list[int]
    sampling: Sampling
    answer: AnswerText


Planner = Callable[[ChatRequest], Plan]
"""Renders and validates a request. Raises ChatServerError: the request then fails with that code."""


@dataclass
class Running:
    """One request in the engine, or ended there and not yet in the journal."""

    held: Assignment
    plan: Plan | None
    engine_id: str
    heard_at: float  # last token or beat that readers could see
    began_at: float
    continued: int  # tokens that were in the journal then
    ending: Ending | None = None
    restart: Literal["", "lease", "engine"] = ""  # begin again: the fence or the engine lost this request

    def unsent(self) -> Event | None:
        return self.held.next_event(self.plan.answer) if self.plan else None

    def result(self, now: float) -> dict[str, object]:
        """What the log tells of its end. `tokens` counts the whole answer, the rate what was made here."""
        assert self.ending is not None
        seconds = now - self.began_at
        made = self.held.journalled - self.continued
        told = {"rid": self.held.rid, "code": self.ending.code, "tokens": self.held.journalled}
        if self.ending.code in ENGINE_CODES:
            told["why"] = self.ending.message  # an engine's words never quote a text
        return {**told, "seconds": round(seconds, 3), "tokens_per_s": round(made / max(seconds, 0.001), 1)}


@dataclass
class Seen:
    """Since when this worker has seen no renewal, by its own clock, and how long the entry was idle when seen last."""

    since: float
    idle_s: float
    by_server: bool = True  # the server's clock, too, may say that its lease is over


class WorkerLoop:
    """All requests of one worker. Not thread-safe: one thread calls it."""

    def __init__(
        self,
        redis: Redis,
        queue: RequestQueue,
        journal: Journal,
        engine: Engine,
        plan: Planner,
        rules: Rules,
        *,
        lease_s: float,
        stall_s: float,
        slots: int,
        on_event: Callable[[EngineEvent], None],
        now: float,
    ) -> None:
        self._redis = redis
        self._queue = queue
        self._journal = journal
        self._engine = engine
        self._plan = plan
        self._rules = rules
        self._lease_s = lease_s
        self._stall_s = stall_s
        self.slots = slots
        self._on_event = on_event
        self.running: dict[str, Running] = {}
        self._by_engine_id: dict[str, Running] = {}
        self._seen: dict[tuple[str, str, int], Seen] = {}
        self._looked_at = now
        self._grace_until = now
        self._busy_at = now  # when the engine last went from idle to busy
        self._renewed_at = now
        self._rescued_at = now
        self._rescued_to = ""  # a look through the queue has come as far as this entry
        self.tokens = 0

    # -- what comes in -------------------------------------------------------------------------------------------

    @property
    def has_suspect(self) -> bool:
        """Whether a request that killed its last worker runs here and has not produced a token yet."""
        return any(running.held.suspect for running in self.running.values())

    def accept(self, entry: Entry, now: float) -> None:
        """Begin an entry that was taken and hand it to the engine, or hand it back when there is no room for it."""
        if len(self.running) >= self.slots or not self._engine.alive():
            self.decline(entry)
        elif entry.place == SUSPECT_PLACE and self.has_suspect:
            self.decline(entry)  # before it is begun: waiting for its turn is no attempt
        elif entry.rid not in self.running:
            self._begin(entry, now)  # else a second entry, after a loss: its lease runs out, then it is acknowledged

    def decline(self, entry: Entry) -> None:
        """Leave an entry that was just taken to whoever has room; that costs it neither its place nor a try."""
        if self._queue.hand_back(entry, self._rules.wid, entry.place):
            log.info("handed back, not begun", extra={"rid": entry.rid})

    def engine_event(self, event: EngineEvent) -> bool:
        """New tokens, or the end, of one request in the engine; whether a reader waits for just this."""
        running = self._by_engine_id.get(event.request_id)
        if running is None or running.ending is not None or running.plan is None:
            return False
        answer = running.plan.answer
        first = running.held.journalled == 0
        try:
            for token_id in event.token_ids:
                answer.push(token_id)
                self.tokens += 1
                if answer.matched_stop:
                    break
        except Exception:  # text that cannot be made ends one request; the worker and its neighbours live on
            log.exception("decoding failed", extra={"rid": running.held.rid})
            self._engine.cancel(event.request_id)
            running.ending = Ending("failed", "internal", "the worker failed on it; its log says why", "", {})
            return True
        if answer.matched_stop:
            self._engine.cancel(event.request_id)
            running.ending = self._ending(running, "finished", "stop", "")
        elif event.outcome == "finished":
            running.ending = self._ending(running, "finished", event.reason, "")
        elif event.outcome == "cancelled" or (event.outcome == "failed" and event.reason == ENGINE_LOST):
            running.restart = "engine"  # cancelled, but not by us
        elif event.outcome == "failed":
            running.ending = self._ending(running, "failed", event.reason or EngineError.code, event.message)
        return first or running.ending is not None

    def cancelled(self, rid: str) -> None:
        """A reader cancelled; the journal says whether that is true."""
        running = self.running.get(rid)
        if running is not None:
            self._beat(running)

    def disconnected(self, now: float) -> None:
        """Redis failed. Everybody's leases look expired after an outage: let their owners renew first."""
        self._grace_until = now + self._lease_s

    # -- what goes out -------------------------------------------------------------------------------------------

    def unsent(self) -> bool:
        """Whether any running request has something to write."""
        return any(r.ending or r.restart or (r.plan and r.held.behind(r.plan.answer)) for r in self.running.values())

    def flush(self, now: float) -> None:
        """Journal and publish what the engine produced, in one pipeline; then end what has ended."""
        batch = [(running, event) for running in self.running.values() if (event := running.unsent())]
        if batch:
            pipe = self._redis.pipeline(transaction=False)
            for running, event in batch:
                held = running.held
                pipe.execute_command(*self._journal.append_command(held.rid, held.entry.epoch, event))
            replies = pipe.execute(raise_on_error=False)
            for (running, _), reply in zip(batch, replies, strict=True):
                self._appended(running, reply, now)
            for reply in replies:
                if isinstance(reply, Exception) and not isinstance(reply, ResponseError):
                    raise reply  # of a cluster, one node may be away: the others' replies are applied all the same
        for running in [r for r in self.running.values() if r.ending or r.restart]:
            if running.restart:
                if self._engine.alive() and not self._must_wait(running):
                    self._restart(running, now)
            elif running.unsent() is None:
                self._end(running, now)

    def _appended(self, running: Running, reply: Any, now: float) -> None:
        if isinstance(reply, NoScriptError):
            self._journal.load_append()
        elif isinstance(reply, ResponseError):
            log.warning("append refused (%s); the tokens are kept", reply, extra={"rid": running.held.rid})
        elif not isinstance(reply, Exception):
            running.heard_at = now
            self._settled(running, assignment.applied(self._queue, running.held, reply, self._rules))

    def _end(self, running: Running, now: float) -> None:
        assert running.ending is not None
        toff = running.plan.answer.slice_from(running.held.journalled)[1] if running.plan else self._text_end(running)
        verdict = assignment.end(self._queue, self._journal, running.held, toff, running.ending, self._rules)
        self._settled(running, verdict)
        if verdict == "done":
            log.info(running.ending.kind, extra=running.result(now))

    @staticmethod
    def _text_end(running: Running) -> int:
        last = running.held.events[-1]
        return last.toff + len(last.text)

    def _settled(self, running: Running, verdict: assignment.Verdict) -> None:
        if verdict in ("done", "over"):
            self._forget(running)
        elif verdict == "restart":
            running.restart = running.restart or "lease"

    def _forget(self, running: Running) -> None:
        self._engine.cancel(running.engine_id)
        self._by_engine_id.pop(running.engine_id, None)
        self.running.pop(running.held.rid, None)

    # -- begin, and begin again ----------------------------------------------------------------------------------

    def _begin(self, entry: Entry, now: float) -> None:
        held = assignment.begin(self._queue, self._journal, entry, self._rules)
        if held is None:
            return
        told = {"rid": entry.rid, "wid": self._rules.wid, "epoch": held.entry.epoch, "try": held.tries}
        log.info("taken", extra={**told, "waited_s": entry.waited_s})
        if held.suspect and self.has_suspect:  # two requests that may each kill a worker never share one
            assignment.hand_back(self._queue, self._journal, held, self._rules)
        else:
            self._start(held, now)

    def _start(self, held: Assignment, now: float) -> None:
        """Continue the answer from its journal: nothing is generated twice, nothing is left out."""
        running = Running(held, None, f"{held.rid}#{held.nonce}", now, now, held.journalled)
        self.running[held.rid] = running
        self._by_engine_id[running.engine_id] = running
        with about(rid=held.rid):
            self._generate(running, held, now)

    def _generate(self, running: Running, held: Assignment, now: float) -> None:
        try:
            running.plan = plan = self._plan(held.request)
            done = held.journalled_ids()
            plan.answer.replay(done)
            remaining = plan.sampling.max_new_tokens - len(done)
            if plan.answer.matched_stop or remaining <= 0:
                code = "stop" if plan.answer.matched_stop else "length"
                running.ending = self._ending(running, "finished", code, "")
                return
            self._submit(running, plan, done, remaining, now)
        except ChatServerError as error:
            if isinstance(error, EngineError) and not self._engine.alive():
                running.restart = "engine"  # it died this moment
            else:
                running.ending = self._ending(running, "failed", error.code, error.message)
        except Exception:  # a request that we cannot even plan ends; the worker and its neighbours live on
            log.exception("planning failed")
            running.ending = self._ending(running, "failed", "internal", "the worker failed on it; its log says why")

    def _submit(self, running: Running, plan: Plan, done: list[int], remaining: int, now: float) -> None:
        sampling = replace(plan.sampling, max_new_tokens=remaining)
        if len(self._by_engine_id) == 1:
            self._busy_at = now
        self._engine.submit(running.engine_id, [*plan.prompt_ids, *done], sampling, self._on_event)
        log.info("began", extra={"prompt_tokens": len(plan.prompt_ids), "continued": len(done)})

    def _must_wait(self, running: Running) -> bool:
        """After the engine was lost, whatever has no token yet may be what killed it: such requests go one by one."""
        suspect = running.restart == "engine" and running.held.journalled == 0
        return suspect and any(r.held.suspect and not r.restart for r in self.running.values())

    def _restart(self, running: Running, now: float) -> None:
        """The fence or the engine lost the request, but its entry is still ours: begin under a new nonce."""
        fresh = assignment.begin(self._queue, self._journal, running.held.entry, self._rules)
        if fresh is None:
            self._forget(running)
            return
        told = {"rid": fresh.rid, "epoch": fresh.entry.epoch, "try": fresh.tries}
        log.info("taken again", extra={**told, "why": f"{running.restart} lost"})
        theirs = fresh.journalled_ids()
        if running.restart == "lease" and running.plan and running.plan.answer.token_ids[: len(theirs)] == theirs:
            running.held, running.restart = fresh, ""  # what we hold extends the journal: readers see no rewind
            return
        self._forget(running)
        self._start(fresh, now)

    def _ending(self, running: Running, kind: Any, code: str, message: str) -> Ending:
        tail, usage = "", {}
        if running.plan is not None:
            tail = running.plan.answer.finish()
            usage = {
                "prompt_tokens": len(running.plan.prompt_ids),
                "completion_tokens": len(running.plan.answer.token_ids),
            }
        return Ending(kind, code, message, tail, usage)

    # -- leases --------------------------------------------------------------------------------------------------

    def keep(self, now: float) -> None:
        """Renew what is held, tell readers that it lives, free what others lost. Call it a few times a second."""
        if now - self._renewed_at >= self._lease_s / 3 and self._engine_lives(now):
            self._renew(now)
            self._renewed_at = now
        self._release(now)
        if self._rescued_to or now - self._rescued_at >= RESCUE_S:
            self._rescued_at = now
            rescued, self._rescued_to = self._queue.rescue(self._rescued_to)
            if rescued:
                log.warning("%d entries were lost to every worker; they stand in line again", rescued)

    def _engine_lives(self, now: float) -> bool:
        """A lease is renewed only while its engine makes progress, so that a dead or hung device loses its requests."""
        if not self._engine.alive():
            return False
        return not self.running or now - max(self._engine.progress(), self._busy_at) < self._stall_s

    def _renew(self, now: float) -> None:
        held = list(self.running.values())
        owned = self._queue.renew([running.held.entry for running in held], self._rules.wid)
        for running, still_ours in zip(held, owned, strict=True):
            if not still_ours:
                log.warning("lease lost", extra={"rid": running.held.rid})
                self._forget(running)
            elif now - running.heard_at >= BEAT_S:
                running.heard_at = now
                self._beat(running)

    def _beat(self, running: Running) -> None:
        """Tell readers that it lives; the journal may say that it has ended, or is another's."""
        refused = self._journal.beat(running.held.rid, running.held.nonce)
        if refused is not None:
            self._settled(running, assignment.settle(self._queue, running.held, refused, self._rules))

    def _release(self, now: float) -> None:
        """Let what lost its lease stand in line again, whoever has room for it then.

        It looks during the grace, too: an idle worker must notice how long an outage lasts, or its grace ends with it.
        """
        mine = {running.held.entry.entry_id for running in self.running.values()}
        others = [row for row in self._queue.pending() if row.owner != HANDBACK and row.entry_id not in mine]
        pause_s, self._looked_at = now - self._looked_at, now
        self._seen = {row.key: self._look(self._seen.get(row.key), row.idle_s, now, pause_s) for row in others}
        for row in others if now >= self._grace_until else []:
            if self._expired(self._seen[row.key], now):
                self._free(row)

    def _look(self, before: Seen | None, idle_s: float, now: float, pause_s: float) -> Seen:
        """What a look at an entry says of its owner, `pause_s` after the look before.

        An owner renews every third of a lease: who looks less often does not see it. And an idle time that grew by
        more than the pause says nothing of the owner: Redis stood still, its clock stepped forward, or it lost a
        renewal with its tail. In both cases our clock alone counts, from now on.
        """
        blind = pause_s >= self._lease_s / 3
        renewed = before is None or idle_s < before.idle_s
        passed_s = 0.0 if before is None else idle_s if renewed else idle_s - before.idle_s
        if blind or passed_s > pause_s + self._lease_s / 4:
            return Seen(now, idle_s, by_server=False)
        return Seen(now, idle_s) if before is None or renewed else replace(before, idle_s=idle_s)

    def _expired(self, seen: Seen, now: float) -> bool:
        """By the server's clock, or by ours: the server's may have stepped back."""
        return (seen.by_server and seen.idle_s >= self._lease_s) or now - seen.since >= self._lease_s

    def _free(self, row: Pending) -> None:
        entry = self._queue.look(row)
        if entry is None or entry.version != VERSION:
            return
        head = self._journal.head(entry.rid) if NAME.fullmatch(entry.rid) else None
        suspect = head is not None and head.tries >= 1 and head.n == 0
        place = SUSPECT_PLACE if suspect else RETRY_PLACE
        if self._queue.hand_back(entry, row.owner, place, idle_s=row.idle_s):
            log.info("%s lost its lease (delivery %d)", row.owner, row.count, extra={"rid": entry.rid})

    # -- the end -------------------------------------------------------------------------------------------------

    def drain(self, now: float) -> int:
        """Stop everything that runs and hand it back; the number of requests handed back."""
        self.flush(now)
        handed = 0
        for running in list(self.running.values()):
            handed += assignment.hand_back(self._queue, self._journal, running.held, self._rules)
            self._forget(running)
        self._queue.retire(self._rules.wid)
        return handed
