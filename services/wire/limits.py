"""What a user may use: the limits as Redis and the database keep them. Quotas, groups and their commands import it."""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import orjson

from services.errors import InvalidRequest

MOST = 10**15  # what Lua counts exactly, and every database holds


@dataclass(frozen=True)
class UserLimits:
    """What a user may use; 0 is no limit. A user of `weight` 2 gets twice the tokens of others while both wait."""

    tokens_per_day: int = 0
    in_flight: int = 0
    weight: float = 1.0

    def __post_init__(self) -> None:
        if self.tokens_per_day < 0 or self.in_flight < 0:
            raise InvalidRequest("tokens per day and requests in flight are at least 0, which is no limit")
        if not 0.1 <= self.weight <= 100:
            raise InvalidRequest(f"weight {self.weight:g} is not from 0.1 to 100")

    @property
    def counts(self) -> bool:
        """Whether what the user uses is counted."""
        return bool(self.tokens_per_day or self.in_flight)

    def under(self, own: Mapping[str, Any]) -> "UserLimits":
        """These, but for those that `own` has. What another build stored there never fails: a field that is unknown
        here is passed over, a number over MOST counts as MOST."""
        return replace(self, **{name: min(value, MOST) for name, value in own.items() if name in NAMES})


NAMES = tuple(field.name for field in fields(UserLimits))


def given_limits(**limits: float | None) -> dict[str, Any]:
    """The limits that are set, of which None is not. Raises InvalidRequest for one that makes no sense."""
    found = {name: value for name, value in limits.items() if value is not None}
    UserLimits().under(found)
    if max(found.get("tokens_per_day", 0), found.get("in_flight", 0)) > MOST:
        raise InvalidRequest(f"tokens per day and requests in flight are at most {MOST:,}; 0 is no limit")
    return found


def encode_limits(own: Mapping[str, Any]) -> bytes:
    """Some limits, as a field of a hash has them."""
    return orjson.dumps(dict(own))


def decode_limits(raw: bytes | None) -> dict[str, Any]:
    """What `encode_limits` wrote; nothing for a user without limits."""
    found: dict[str, Any] = orjson.loads(raw) if raw else {}
    return found
