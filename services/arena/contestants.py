"""Who meets in a battle: two models, or one model with two settings, in an order that chance decides."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from services.errors import InvalidRequest, Unavailable, shown

TWO_SETTINGS: tuple[Mapping[str, Any], Mapping[str, Any]] = (
    {"sampling": {"temperature": 0.2}},
    {"sampling": {"temperature": 1.0}},
)  # of a model that meets itself

PRIVATE = ("stop", "response_format", "logit_bias")  # a user's own words, which no name may show
ALIKE = ("seed", "max_new_tokens")  # chance and length: who differs in nothing else is the same contestant


@dataclass(frozen=True)
class Contestant:
    """A model with the settings that were asked for: `sampling`, `thinking`. Without a name, any model."""

    model: str = ""
    parameters: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """As the leaderboard lists it for everybody: settings make another contestant of a model, but not all do."""
        settings = {**self.parameters, **(self.parameters.get("sampling") or {})}
        named = {key: value for key, value in settings.items() if key not in ("sampling", *PRIVATE, *ALIKE)}
        words = [f"{key} {_rounded(value)}" for key, value in sorted(named.items()) if value is not None]
        return f"{self.model} ({', '.join(words)})" if words else self.model


def _rounded(value: object) -> object:
    """Numbers that differ by less make no other contestant."""
    return round(value, 2) if isinstance(value, float) else value


def draw(
    asked: tuple[Contestant, Contestant], served: Sequence[str], chance: random.Random
) -> tuple[Contestant, Contestant]:
    """The left and the right one. Raises Unavailable where nothing is served, InvalidRequest for twice the same."""
    if not served:
        raise Unavailable("no worker serves a model; start one with `chatserver worker` or `chatserver up`")
    first, second = _named(asked, served, chance)
    if first.name == second.name:
        if first.parameters or second.parameters:
            raise InvalidRequest(
                f"both sides are {shown(first.name)}; give them two models or two settings (not only another "
                f"{' or '.join(ALIKE)})",
                field="sides",
            )
        first, second = (Contestant(first.model, settings) for settings in TWO_SETTINGS)
    return (first, second) if chance.random() < 0.5 else (second, first)


def _named(
    asked: tuple[Contestant, Contestant], served: Sequence[str], chance: random.Random
) -> tuple[Contestant, Contestant]:
    """Chosen models stay; each other side draws one that is not on the first side, where there is another."""
    taken = [each.model for each in asked if each.model]
    named = []
    for each in asked:
        model = each.model or chance.choice([name for name in served if name not in taken] or list(served))
        taken.append(model)
        named.append(Contestant(model, each.parameters))
    return named[0], named[1]
