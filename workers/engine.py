"""The interface of an engine: token ids in, token ids out. The worker loop and the adapters share only this module.

An engine knows neither Redis nor text. It runs its own thread(s) after `start`, and accepts requests from any thread.
It reports to the `on_event` callback of each request, in order, from its own thread. A callback must be quick.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal, Protocol, Self

from services.models.catalogue import ModelSource
from services.settings import Settings

Logprob = tuple[float, tuple[tuple[int, float], ...]]
"""The logarithm of a token's probability; the ids of the likeliest tokens in its place, and theirs. Of the model's own
distribution, before penalties, biases, grammar and temperature."""

Outcome = Literal["finished", "failed", "cancelled"]

ENGINE_LOST = "engine_lost"
"""Reason of a `failed` event when the whole engine died or hung: the request is innocent and may be begun again."""


@dataclass(frozen=True)
class EngineOptions:
    """The options of an engine: the settings of the same names. An adapter says how it uses each."""

    slots: int = 16
    context_tokens: int = 0  # 0: what the model allows
    cache_gib: float = 1.0
    state_dir: Path | None = None  # keeps copies of weights; without it, none are made
    dtype: str = "auto"
    repeatable: bool = False  # a greedy answer does not depend on what is computed beside it
    tensor_parallel: int = 0  # GPUs over which each layer is spread; 0: all that the engine sees

    @classmethod
    def from_settings(cls, settings: Settings) -> Self:
        return cls(**{field.name: getattr(settings, field.name) for field in fields(cls)})


@dataclass(frozen=True)
class Sampling:
    """How to draw the next token. Temperature 0 means greedy, whatever the options of drawing are.

    The penalties count the tokens of the answer: the last `num_answered` tokens of the prompt belong to it, since
    another worker generated them. An engine that counts them supports `num_answered`.
    """

    max_new_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0  # 0 = all of the vocabulary
    repetition_penalty: float = 1.0
    seed: int | None = None
    stop_token_ids: tuple[int, ...] = ()  # none: nothing but its length ends the answer
    min_p: float = 0.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: tuple[tuple[int, float], ...] = ()  # (token id, what is added to its logit)
    num_answered: int = 0
    grammar: str = ""  # of what is still to come, in the engine's notation
    logprobs: bool = False  # whether events have those of their tokens
    top_logprobs: int = 0  # how many of the likeliest tokens they have


@dataclass(frozen=True)
class EngineEvent:
    """New tokens of one request. Exactly one event of a request says how it ended.

    `token_ids` holds only tokens not reported before; a stop token is never among them. `reason` is `stop` or
    `length` when finished; an error code of `services.errors`, or ENGINE_LOST, when failed. `logprobs`: one for each
    token, if the request asks for them.
    """

    request_id: str
    token_ids: tuple[int, ...] = ()
    outcome: Outcome | None = None
    reason: str = ""
    message: str = ""
    logprobs: tuple[Logprob, ...] = ()


@dataclass(frozen=True)
class ModelLimits:
    """The limits of a model, for validation above the engine."""

    vocab_size: int
    context_tokens: int  # prompt + answer
    max_running: int  # slots: requests that may run at once
    supports: frozenset[str]  # names of Sampling fields honoured per request
    grammar_notation: str = ""  # of `services.grammar.notations`; empty: the engine obeys no grammar


OnEvent = Callable[[EngineEvent], None]


class Engine(Protocol):
    """An adapter's methods. `submit` never waits for generation; after `stop` every request has had its end."""

    @property
    def name(self) -> str: ...

    @property
    def description(self) -> str:
        """One line: attention, precision, device, and why."""

    @property
    def limits(self) -> ModelLimits: ...

    def start(self) -> None:
        """Load the weights and start the loop. Raises ConfigurationError when the model cannot be loaded."""

    def stop(self) -> None:
        """Cancel what runs, end the threads, free the memory. Idempotent."""

    def submit(self, request_id: str, prompt_token_ids: Sequence[int], sampling: Sampling, on_event: OnEvent) -> None:
        """Queue one request. Raises InvalidRequest or EngineError; then no event follows."""

    def cancel(self, request_id: str) -> None:
        """End a request with outcome `cancelled`; an unknown or ended id is ignored."""

    def progress(self) -> float:
        """`time.monotonic()` of the last step that advanced a request: evidence for the watchdog and the leases."""

    def alive(self) -> bool:
        """False once the loop has died: then no request will ever be answered."""


class Adapter(Protocol):
    """The class of an engine. Making one loads nothing."""

    def __call__(self, source: ModelSource, options: EngineOptions) -> Engine: ...

    def can_read(self, source: ModelSource) -> tuple[bool, str]:
        """Whether the engine can serve a model, and the reason as the end of a sentence: `ModelName is …`."""
