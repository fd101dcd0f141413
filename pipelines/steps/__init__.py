"""The steps of cleaning, one file each: an iterator of conversations to an iterator of conversations.

A module here has the name of its step in a recipe and offers `build(options) -> Step`, where `options` come from the
file of the same name in `services/jobs/steps/`. A step passes a record on, or gives it to the ledger with one of the
reasons in that file. A step that must see all shards before it can judge (`barrier`) offers `build(options) -> Barrier`
instead; a step that needs the tokenizer of the trained model offers `build(options, tokenizer)`.

    step = build(RolesOptions())
    kept = list(step(conversations, Ledger("roles")))
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

from pipelines.records.conversation import Conversation
from pipelines.records.ledger import Ledger
from services.jobs.recipe import Recipe, StepChoice

Step = Callable[[Iterable[Conversation], Ledger], Iterator[Conversation]]


@dataclass(frozen=True, slots=True)
class Verdict:
    """A record that a barrier rejects. `twin`: the (shard, index) of the record kept instead, if it is a duplicate."""

    reason: str
    twin: tuple[int, int] | None = None


class Barrier(Protocol):
    """A step in two parts: every shard signs its records, then one process judges all signatures together."""

    signature_bytes: int

    def sign(self, conversation: Conversation) -> bytes:
        """Exactly `signature_bytes` bytes: all that `judge` will know of it. Deterministic in every process."""

    def judge(self, signatures: Sequence[Path]) -> list[Mapping[int, Verdict]]:
        """For each shard's file of signatures, in order: index of the record in its shard → why it ends here."""


def build(choice: StepChoice, recipe: Recipe) -> Any:
    """The Step or Barrier of one entry of a recipe. Raises ConfigurationError if it cannot work on this machine."""
    module = import_module(f"pipelines.steps.{choice.name}")
    if choice.options.asks_tokenizer:
        return module.build(choice.options, recipe.tokenizer)
    return module.build(choice.options)
