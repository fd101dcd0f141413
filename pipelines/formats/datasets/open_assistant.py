"""OpenAssistant: trees of messages. `foreign.py` calls it.

    {"message_tree_id", "prompt": {"text", "role", "rank", "replies": [{…}]}}

The best path takes the answer of the lowest rank each time; every other leaf is a branch. Deleted messages are none.
The flat files (one message a line) become such trees in `gathering.py`.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from pipelines.formats.exports.dialogue import Dialogue, distinct
from pipelines.formats.translation import Format, LeftOut, Record, Translation, objects, without

ROLES = {"prompter": "user"}
NO_RANK = 1_000_000


def _translate(record: Record, all_branches: bool) -> Iterator[Translation]:
    root = record["prompt"]
    if all_branches:
        yield from distinct(lambda: (_branch(record, path, bool(number)) for number, path in enumerate(_paths(root))))
        return
    best = next(_paths(root))
    kept = {id(one) for one in best}
    beside = [LeftOut("other_branch", without(one, "replies")) for _, one, _ in _walk(root) if id(one) not in kept]
    yield replace(_branch(record, best, beside=False), left_out=beside)


def _branch(record: Record, path: list[dict[str, Any]], beside: bool) -> Translation:
    dialogue = Dialogue()
    for one in path:
        role = str(one.get("role"))
        labels = {name: one[name] for name in ("rank", "lang", "labels", "detoxify") if one.get(name) is not None}
        dialogue.say(ROLES.get(role, role), one.get("text"), one, **labels)
    about = {"id": record.get("message_tree_id"), "lang": path[0].get("lang")}
    return dialogue.ended(about, str(path[-1].get("message_id")) if beside else "")


def _replies(one: dict[str, Any]) -> list[dict[str, Any]]:
    """Best first; those without a rank in their order, last."""
    kept = [reply for reply in objects(one.get("replies") or [], "replies") if not reply.get("deleted")]
    return sorted(kept, key=lambda reply: NO_RANK if reply.get("rank") is None else reply["rank"])


def _paths(root: dict[str, Any]) -> Iterator[list[dict[str, Any]]]:
    """Every path from the root to a leaf, the best one first."""
    path: list[dict[str, Any]] = []
    for depth, one, is_leaf in _walk(root):
        path[depth:] = [one]
        if is_leaf:
            yield list(path)


def _walk(root: dict[str, Any]) -> Iterator[tuple[int, dict[str, Any], bool]]:
    """Every message with its depth and whether it is a leaf, those of the best path first."""
    left = [(0, root)]
    while left:
        depth, one = left.pop()
        replies = _replies(one)
        yield depth, one, not replies
        left += [(depth + 1, reply) for reply in reversed(replies)]


def _recognises(record: Record) -> bool:
    prompt = record.get("prompt")
    return isinstance(prompt, dict) and "replies" in prompt and "text" in prompt


FORMAT = Format("an OpenAssistant tree", _recognises, _translate)
