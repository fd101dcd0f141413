"""The body of the worker's loop, without threads: it takes assignments and engine events, and writes the journal.

begin → engine.submit → append (one pipeline for all running requests) → finish, and begin again when the fence or the
engine has lost a request. Threads in `workers/worker.py` feed it; in the model test a scheduler does. After a redis
error every assignment is as it was: the caller reports the error to the leases and calls again.
"""

import logging
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from redis import Redis
from redis.exceptions import ResponseError

from services.chat.queue import SUSPECT_PLACE
from services.errors import ChatServerError, EngineError
from services.logs import about
from workers.assignment import Assignment, Verdict
from workers.engine import Engine, EngineEvent
from workers.generation import SEE_LOG, Generation, Planner
from workers.leases import Leases

log = logging.getLogger("chatserver.worker")

BEAT_S = 0.9  # of silence: with each renewal of the leases, a worker says that it lives


class WorkerLoop:
    """All requests of one worker. Not thread-safe: one thread calls it."""

    def __init__(
        self,
        redis: Redis,
        leases: Leases,
        engine: Engine,
        plan: Planner,
        *,
        stall_s: float,
        slots: int,
        on_event: Callable[[EngineEvent], None],
        now: float,
    ) -> None:
        self._redis = redis
        self.leases = leases
        self._engine = engine
        self._plan = plan
        self._stall_s = stall_s
        self.slots = slots
        self._on_event = on_event
        self.running: dict[str, Generation] = {}
        self._by_engine_id: dict[str, Generation] = {}
        self._waiting: deque[Generation] = deque()  # begun, and the engine's cache has no room for the first of them
        self._busy_at = now  # when the engine last went from idle to busy
        self._draining = False
        self.tokens = 0

    # -- what comes in -------------------------------------------------------------------------------------------

    @property
    def has_suspect(self) -> bool:
        """Whether a request that killed its last worker runs here and has not produced a token yet."""
        return any(generation.held.suspect for generation in self.running.values())

    @property
    def num_free(self) -> int:
        """Requests that this worker may take: none while one waits for room in the cache, as no other may overtake."""
        return 0 if self._waiting else max(0, self.slots - len(self.running))

    def accept(self, taken: Assignment, now: float) -> None:
        """Begin an assignment and give it to the engine, or hand it back when there is no room."""
        if not self.num_free or not self._engine.alive():
            taken.decline()
        elif taken.entry.place == SUSPECT_PLACE and self.has_suspect:
            taken.decline()  # before it is begun: waiting for its turn is no attempt
        elif taken.rid not in self.running:  # else a second entry, after a loss: its lease runs out, then it is acked
            self._begin(taken, now)

    def engine_event(self, event: EngineEvent) -> bool:
        """Handle new tokens or the end of a request in the engine; whether a reader waits for just this."""
        generation = self._by_engine_id.get(event.request_id)
        if generation is None or not generation.generating or generation.resubmit:
            return False
        first = generation.held.journalled == 0
        self.tokens += generation.push(event.token_ids, event.logprobs)
        generation.apart = generation.apart and not event.token_ids
        if generation.ending or generation.resubmit:
            self._engine.cancel(event.request_id)
        elif event.outcome:
            generation.leave_engine(event)
        return first or generation.ending is not None

    def cancelled(self, rid: str) -> None:
        """Handle a cancel: ask the journal whether the request was cancelled."""
        if generation := self.running.get(rid):
            self._apply(generation.held.keep_alive(), generation)

    # -- what goes out -------------------------------------------------------------------------------------------

    def unsent(self) -> bool:
        """Whether any running request has something to write."""
        return any(generation.unwritten for generation in self.running.values())

    def flush(self, now: float) -> None:
        """Append and publish all new tokens in one pipeline; then finish the requests that have ended."""
        self._append(now)
        for generation in list(self.running.values()):
            if generation.restart:
                if self._engine.alive() and not self._must_wait(generation):
                    self._restart(generation, now)
            elif generation.ending and generation.unsent() is None:
                self._finish(generation, now)
            elif generation.resubmit and not generation.ending:
                self._resubmit(generation, now)
        self._admit(now)

    def _append(self, now: float) -> None:
        batch = [(generation, event) for generation in self.running.values() if (event := generation.unsent())]
        if not batch:
            return
        pipe = self._redis.pipeline(transaction=False)
        for generation, event in batch:
            pipe.execute_command(*generation.held.append_command(event))
        replies = pipe.execute(raise_on_error=False)
        for (generation, _), reply in zip(batch, replies, strict=True):
            self._appended(generation, reply, now)
        for reply in replies:
            if isinstance(reply, Exception) and not isinstance(reply, ResponseError):
                raise reply  # of a cluster, one node may be away: the others' replies are applied all the same

    def _appended(self, generation: Generation, reply: Any, now: float) -> None:
        if not isinstance(reply, Exception):
            generation.heard_at = now
        self._apply(generation.held.appended(reply), generation)

    def _finish(self, generation: Generation, now: float) -> None:
        assert generation.ending is not None
        verdict = generation.held.finish(generation.text_offset, generation.ending)
        self._apply(verdict, generation)
        if verdict == "done":
            log.info(generation.ending.kind, extra=generation.result(now))

    def _apply(self, verdict: Verdict, generation: Generation) -> None:
        if verdict in ("done", "over"):
            self._forget(generation)
        elif verdict == "restart":
            generation.restart = generation.restart or "lease"

    def _forget(self, generation: Generation) -> None:
        self._engine.cancel(generation.engine_id)
        self._by_engine_id.pop(generation.engine_id, None)
        self.running.pop(generation.held.rid, None)
        if generation in self._waiting:
            self._waiting.remove(generation)

    # -- begin, and begin again ----------------------------------------------------------------------------------

    def _begin(self, taken: Assignment, now: float) -> None:
        if not taken.begin():
            return
        log.info("taken", extra={**taken.facts(), "wid": taken.wid, "waited_s": taken.entry.waited_s})
        if taken.suspect and self.has_suspect:  # two requests that may each kill a worker never share one
            taken.hand_back()
        else:
            self._start(taken, now)

    def _start(self, held: Assignment, now: float, *, apart: bool = False) -> None:
        """Continue the answer from its journal: no token is generated twice or left out."""
        generation = Generation(held, now)
        generation.apart = apart
        self.running[held.rid] = generation
        with self._fault_of(generation):
            generation.resume(self._plan(held.request))
        if generation.generating:
            self._waiting.append(generation)
            self._admit(now)
            if generation in self._waiting:
                log.info("waits for room in the cache", extra={"rid": held.rid, "tokens": generation.cache_tokens})

    def _admit(self, now: float) -> None:
        """Give the engine what waits for room in its cache, in the order in which it came."""
        while self._waiting and self._engine.alive() and self._has_room_for(self._waiting[0]):
            self._submit(self._waiting.popleft(), now)

    def _has_room_for(self, newcomer: Generation) -> bool:
        """Whether it fits beside what the engine computes. Alone it always does: its length is checked.

        After memory ran out, prompts are computed one at a time, so that the engine knows which one is too much.
        """
        if any(generation.apart for generation in self.running.values()) and self._computes_a_prompt:
            return False
        limit = self._engine.limits.cache_tokens
        if not limit:
            return True
        taken = sum(generation.cache_tokens for generation in self.running.values() if generation.in_cache)
        return not taken or taken + newcomer.cache_tokens <= limit

    @property
    def _computes_a_prompt(self) -> bool:
        return any(generation.silent for generation in self.running.values())

    def _resubmit(self, generation: Generation, now: float) -> None:
        """Go on under the grammar, which begins here. The engine knows the rest of the answer by another name."""
        self._by_engine_id.pop(generation.engine_id, None)
        generation.engine_id += "+"
        self._submit(generation, now)

    @contextmanager
    def _fault_of(self, generation: Generation) -> Iterator[None]:
        """A request that the planner or the engine refuses ends here."""
        with about(rid=generation.held.rid):
            try:
                yield
            except ChatServerError as error:
                if isinstance(error, EngineError) and not self._engine.alive():
                    generation.restart = "engine"  # it died this moment
                else:
                    generation.end("failed", error.code, error.message)
            except Exception:  # a request that we cannot even plan ends; the worker and its neighbours live on
                log.exception("planning failed")
                generation.end("failed", "internal", SEE_LOG)

    def _submit(self, generation: Generation, now: float) -> None:
        if self._draining:  # its last flush may make room, and nobody would read what is computed
            return
        with self._fault_of(generation):
            token_ids, sampling = generation.submission()
            self._by_engine_id[generation.engine_id] = generation
            if len(self._by_engine_id) == 1:
                self._busy_at = now
            self._engine.submit(generation.engine_id, token_ids, sampling, self._on_event)
            continued = len(generation.held.journalled_ids())
            log.info("began", extra={"prompt_tokens": len(token_ids) - continued, "continued": continued})

    def _must_wait(self, lost: Generation) -> bool:
        """After the engine died, any request without a token may have killed it: begin such requests one by one."""
        suspect = lost.restart == "engine" and lost.held.journalled == 0
        return suspect and any(other.held.suspect and not other.restart for other in self.running.values())

    def _restart(self, lost: Generation, now: float) -> None:
        """Begin under a new nonce: the fence or the engine lost the request, but this worker still has its entry."""
        held, why = lost.held, lost.restart
        if not held.begin():
            self._forget(lost)
            return
        log.info("taken again", extra={**held.facts(), "why": f"{why} lost"})
        if why == "lease" and lost.extends(held.journalled_ids()):
            lost.restart = ""  # what we hold extends the journal: readers see no rewind
            return
        self._forget(lost)
        self._start(held, now, apart=lost.apart)

    # -- leases --------------------------------------------------------------------------------------------------

    def keep(self, now: float) -> None:
        """Renew leases, send keep-alives, free requests of silent workers. Call it a few times a second."""
        if self.leases.due(now) and self._engine_lives(now):
            self._renew(now)
        self.leases.free({generation.held.entry.entry_id for generation in self.running.values()}, now)
        self.leases.rescue(now)
        self._admit(now)  # an engine that was away may be back

    def _engine_lives(self, now: float) -> bool:
        """Renew leases only while the engine makes progress, so that a dead or hung device loses its requests."""
        if not self._engine.alive():
            return False
        return not self.running or now - max(self._engine.progress(), self._busy_at) < self._stall_s

    def _renew(self, now: float) -> None:
        held = list(self.running.values())
        owned = self.leases.renew([generation.held.entry for generation in held])
        for generation, still_ours in zip(held, owned, strict=True):
            if not still_ours:
                log.warning("lease lost", extra={"rid": generation.held.rid})
                self._forget(generation)
            elif now - generation.heard_at >= BEAT_S:
                generation.heard_at = now
                self._apply(generation.held.keep_alive(), generation)
        self.leases.renewed(now)

    # -- the end -------------------------------------------------------------------------------------------------

    def drain(self, now: float) -> int:
        """Stop all running requests and hand them back. Returns their number."""
        self._draining = True
        self.flush(now)
        handed = 0
        for generation in list(self.running.values()):
            handed += generation.held.hand_back()
            self._forget(generation)
        self.leases.retire()
        return handed
