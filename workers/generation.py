"""One answer during its generation, from the plan to the end. It knows engine events and text, not Redis.

`workers/loop.py` makes a generation for each assignment that has begun, and feeds it the events of the engine. An error
in the text of one answer ends that answer; the worker and its other requests go on.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol

from services.errors import EngineError, OutOfMemory
from services.grammar.expressions import Grammar, TooAmbiguous
from services.grammar.notations import written
from services.wire.messages import ChatRequest, Event
from workers.answer_logprobs import AnswerLogprobs
from workers.assignment import Assignment, Ending, Transcript, parts_within
from workers.engine import ENGINE_LOST, EngineEvent, Logprob, Sampling
from workers.running import is_out_of_memory

log = logging.getLogger("chatserver.worker")

ENGINE_CODES = frozenset({EngineError.code, OutOfMemory.code})
EXPECTED_TOKENS = 1024  # that an answer may still get: many clients allow it the whole context, and few answers use it
SEE_LOG = "the worker failed on this request; its log says why"


class AnswerText(Transcript, Protocol):
    """The part of `workers.answer.Answer` that a generation needs."""

    reasoning_tokens: int  # of the tokens

    @property
    def obeying(self) -> str | None:
        """The text that the grammar is about, with what is held back of it; None where it has not begun."""

    @property
    def is_over(self) -> bool: ...
    def push(self, token_id: int) -> str: ...
    def replay(self, token_ids: Sequence[int]) -> None: ...
    def finish(self) -> str: ...


@dataclass(frozen=True)
class Plan:
    """How to generate one answer: the rendered prompt, how to sample after it, and the text to come.

    `context_tokens`: what the model can read (0: unknown). `omitted_messages`: how many of the oldest it does not read.
    `grammar`: what the answer obeys behind its reasoning, or behind what begins its calls, and the engine's notation.
    `logprobs`: those of the answer, where they are asked for.
    """

    prompt_ids: list[int]
    sampling: Sampling
    answer: AnswerText
    context_tokens: int = 0
    omitted_messages: int = 0
    grammar: Grammar | None = None
    notation: str = ""
    logprobs: AnswerLogprobs | None = None

    @property
    def context(self) -> dict[str, int]:
        """What readers are told of the prompt."""
        told = {"prompt_tokens": len(self.prompt_ids)}
        known = {"context_tokens": self.context_tokens, "omitted_messages": self.omitted_messages}
        return {**told, **{name: number for name, number in known.items() if number}}


Planner = Callable[[ChatRequest], Plan]
"""Renders and validates a request. Raises ChatServerError: the request then fails with that code."""


class Generation:
    """One request in the engine, or one that has ended there but not yet in the journal."""

    def __init__(self, held: Assignment, now: float) -> None:
        self.held = held
        self.engine_id = f"{held.rid}#{held.nonce}"
        self.heard_at = now  # last token or beat that readers could see
        self.plan: Plan | None = None
        self.ending: Ending | None = None
        self.resubmit = False  # the grammar begins here: the engine shall go on under the grammar
        self._submitted = False
        self._is_free = False  # the engine generates without the grammar
        self.restart: Literal["", "lease", "engine"] = ""  # begin again: the fence or the engine lost this request
        self.apart = False  # memory ran out: it is begun again when the engine has a token of all that it computes
        self._began_at = now
        self._continued = held.journalled  # tokens that were in the journal then

    # -- from the journal to the engine --------------------------------------------------------------------------

    def resume(self, plan: Plan) -> None:
        """Continue the plan after the tokens in the journal: none is generated twice. A complete answer ends here."""
        self.plan, self.held.prompt_tokens = plan, len(plan.prompt_ids)
        done = self.held.journalled_ids()
        plan.answer.replay(done)
        if plan.logprobs is not None:
            plan.logprobs.tokens = self.held.journalled_logprobs()
        if plan.answer.is_over:
            self.end("finished", "stop")
        elif len(done) >= plan.sampling.max_new_tokens:
            self.end("finished", "length")

    def submission(self) -> tuple[list[int], Sampling]:
        """The request to the engine: prompt and answer so far, and the number of tokens left."""
        assert self.plan is not None
        self._submitted = True
        done = self.plan.answer.token_ids
        left = self.plan.sampling.max_new_tokens - len(done)
        sampling = replace(self.plan.sampling, max_new_tokens=left, num_answered=len(done), grammar=self._grammar())
        return [*self.plan.prompt_ids, *done], sampling

    @property
    def in_cache(self) -> bool:
        """Whether the engine computes it, or will."""
        return self._submitted and self.generating and self.restart != "engine"

    @property
    def silent(self) -> bool:
        """Whether the engine computes its prompt: no token came since this worker began it."""
        return self.in_cache and self.plan is not None and len(self.plan.answer.token_ids) <= self._continued

    @property
    def cache_tokens(self) -> int:
        """The room that it needs in the engine's cache: prompt, answer so far, and what is expected to follow."""
        assert self.plan is not None
        expected = len(self.plan.answer.token_ids) + EXPECTED_TOKENS
        return len(self.plan.prompt_ids) + min(self.plan.sampling.max_new_tokens, expected)

    def _grammar(self) -> str:
        """The grammar of the rest of the answer; empty before it begins. An engine cannot begin in its middle."""
        assert self.plan is not None
        plan, self.resubmit = self.plan, False
        obeying = None if plan.grammar is None else plan.answer.obeying
        self._is_free = plan.grammar is not None and obeying is None
        if plan.grammar is None or obeying is None:
            return ""
        try:
            rest = plan.grammar.after(obeying)
        except TooAmbiguous:
            raise EngineError("the answer's form can be read in too many ways to go on here; ask again") from None
        if rest is None:
            raise EngineError("the answer has left its response_format or a tool's schema; ask again")
        return written(rest, plan.notation)

    def extends(self, journalled: list[int]) -> bool:
        """Whether what was generated here continues these tokens."""
        return self.plan is not None and self.plan.answer.token_ids[: len(journalled)] == journalled

    # -- from the engine to the journal --------------------------------------------------------------------------

    @property
    def generating(self) -> bool:
        """Whether tokens may still come."""
        return self.plan is not None and self.ending is None

    def push(self, token_ids: Sequence[int], logprobs: Sequence[Logprob] = ()) -> int:
        """Take new tokens, and what the engine says of each if it was asked. Returns how many tokens it took.

        End at a stop string, or where decoding fails.
        """
        assert self.plan is not None
        answer, before = self.plan.answer, len(self.plan.answer.token_ids)
        try:
            for at, token_id in enumerate(token_ids):
                answer.push(token_id)
                if self.plan.logprobs is not None:
                    self.plan.logprobs.add(logprobs[at])
                if answer.is_over or self._meets_grammar(answer):
                    break
        except Exception:
            log.exception("decoding failed", extra={"rid": self.held.rid})
            self.ending = Ending("failed", "internal", SEE_LOG, "", {})
        else:
            if answer.is_over:
                self.end("finished", "stop")
            elif self.resubmit and len(answer.token_ids) >= self.plan.sampling.max_new_tokens:
                self.end("finished", "length")
        return len(answer.token_ids) - before

    def _meets_grammar(self, answer: AnswerText) -> bool:
        """Whether the grammar begins here. What the engine has generated behind this token knew nothing of it."""
        self.resubmit = self.resubmit or (self._is_free and answer.obeying is not None)
        return self.resubmit

    def leave_engine(self, event: EngineEvent) -> None:
        """Handle an outcome of the engine: the answer has ended, or the engine has lost it."""
        if event.outcome == "finished":
            self.end("finished", event.reason)
        elif event.outcome == "cancelled" or event.reason == ENGINE_LOST:
            self.restart = "engine"  # cancelled, but not by us
            self.apart = is_out_of_memory(event.message)
        else:
            self.end("failed", event.reason or EngineError.code, event.message)

    def end(self, kind: Literal["finished", "failed"], code: str, message: str = "") -> None:
        """Nothing follows what was generated."""
        if self.plan is None:
            self.ending = Ending(kind, code, message, "", {})
            return
        answer = self.plan.answer
        tail = answer.finish()
        toff = answer.slice_from(len(answer.token_ids))[1]
        usage = {**self.plan.context, "completion_tokens": len(answer.token_ids)}
        if answer.reasoning_tokens:
            usage["reasoning_tokens"] = answer.reasoning_tokens
        places = self.plan.logprobs.places(toff, tail) if self.plan.logprobs else ()
        self.ending = Ending(kind, code, message, tail, usage, parts_within(answer, toff, tail), places)

    @property
    def unwritten(self) -> bool:
        """Whether the journal lacks tokens or the end of the answer."""
        behind = self.plan is not None and self.held.behind(self.plan.answer)
        return behind or bool(self.ending or self.restart or self.resubmit)

    def unsent(self) -> Event | None:
        """The tokens that the journal lacks, as one event. The first one says what the prompt leaves out."""
        event = self.held.next_event(self.plan.answer) if self.plan else None
        if event and self.plan and self.plan.logprobs:
            tokens = self.plan.logprobs.of_tokens(event.off, len(event.ids))
            event = replace(event, logprobs=tokens, places=self.plan.logprobs.places(event.toff, event.text))
        if event and self.plan and self.plan.omitted_messages and event.off <= self._continued:
            return replace(event, context=self.plan.context)
        return event

    @property
    def text_offset(self) -> int:
        """The end of the text in the journal, in code points."""
        if self.plan is not None:
            return self.plan.answer.slice_from(self.held.journalled)[1]
        last = self.held.events[-1]
        return last.toff + len(last.text)

    def result(self, now: float) -> dict[str, object]:
        """The fields of the log line about the end. `tokens` counts the whole answer, the rate this worker's tokens."""
        assert self.ending is not None
        seconds = now - self._began_at
        made = self.held.journalled - self._continued
        told = {"rid": self.held.rid, "code": self.ending.code, "tokens": self.held.journalled}
        if self.ending.code in ENGINE_CODES:
            told["why"] = self.ending.message  # an engine's words never quote a text
        return {**told, "seconds": round(seconds, 3), "tokens_per_s": round(made / max(seconds, 0.001), 1)}
