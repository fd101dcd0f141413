"""What a browser is told of a battle's answer before the vote: nothing by which one model differs from another.

Times, counts of tokens, the size of the context, the place in a model's queue and the words of a failure all tell.
"""

from collections.abc import Mapping
from typing import Any

SHOWN = ("state", "status", "offset", "code", "parts")
WAITING = ("loading", "no_worker")  # both would tell which model it is to whoever knows what is served


def blinded(event: Mapping[str, Any]) -> dict[str, Any]:
    """A status or an end without what tells the model."""
    told = {name: value for name, value in event.items() if name in SHOWN}
    if told.get("state") in WAITING:
        told["state"] = "queued"
    return told
