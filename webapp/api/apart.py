"""Makes bodies with many log probabilities outside the event loop: others' answers go on meanwhile.

A token has up to 21 of them, and an answer a million in all.
"""

from collections.abc import Callable
from typing import ParamSpec, TypeVar

from webapp.server.threads import in_slow_thread

_FEW = 100  # tokens; their log probabilities are made in some milliseconds

P = ParamSpec("P")
R = TypeVar("R")


def apart(num_tokens: int, make: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """What `make` returns. `num_tokens`: those with log probabilities that it goes through."""
    return make(*args, **kwargs) if num_tokens <= _FEW else in_slow_thread(make, *args, **kwargs)
