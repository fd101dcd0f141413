"""How functions that use the database are called: where they may block, and once more when two made the same row."""

from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from sqlalchemy.exc import IntegrityError

P = ParamSpec("P")
R = TypeVar("R")

Run = Callable[..., Any]
"""run(function, *arguments): calls it where it may block"""


def at_once(function: Callable[..., Any], *arguments: Any) -> Any:
    """For processes in which nothing else waits."""
    return function(*arguments)


def once_more(function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """A transaction that finds or makes rows: when another one made them meanwhile, the second call finds them."""
    try:
        return function(*args, **kwargs)
    except IntegrityError:
        return function(*args, **kwargs)
