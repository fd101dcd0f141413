"""The one source of chance of the corpus. Used by all modules of this folder."""

import random
from collections.abc import Sequence
from typing import TypeVar

Item = TypeVar("Item")


class Dice:
    """Built on `Random.random` alone, whose sequence for a seed is the same in every version of Python."""

    def __init__(self, *seed: object) -> None:
        self.random = random.Random(":".join(map(str, seed))).random

    def pick(self, items: Sequence[Item]) -> Item:
        return items[int(self.random() * len(items))]

    def chance(self, share: float) -> bool:
        return self.random() < share

    def between(self, low: int, high: int) -> int:
        """Both ends included."""
        return low + int(self.random() * (high - low + 1))

    def digits(self, count: int) -> str:
        return str(int(self.random() * 10**count)).zfill(count)

    def weighted(self, shares: Sequence[tuple[str, float]], rest: str) -> str:
        """A name with the probability beside it; `rest` gets what the shares leave."""
        left = self.random()
        for name, share in shares:
            left -= share
            if left < 0:
                return name
        return rest
