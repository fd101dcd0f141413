"""Sets a share of the conversations aside for validation.

The seed and the id of the input record alone decide the side. So all pieces of one conversation are on one side, and a
record stays on its side when the input grows.
"""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import replace

from pipelines.records.conversation import Conversation
from pipelines.records.ledger import Ledger
from pipelines.steps import Step
from services.jobs.steps.split_validation import SplitValidationOptions


def build(options: SplitValidationOptions) -> Step:
    def step(conversations: Iterable[Conversation], ledger: Ledger) -> Iterator[Conversation]:
        for conversation in conversations:
            drawn = _draw(options.seed, conversation.origin_id)
            split = "validation" if drawn < options.fraction else "train"
            ledger.changed(split)
            yield replace(conversation, split=split)

    return step


def _draw(seed: int, name: str) -> float:
    """A number in [0, 1) that looks random and is always the same for these two."""
    digest = hashlib.sha256(f"{seed}\n{name}".encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:6], "big") / 2**48
