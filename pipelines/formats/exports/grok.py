"""Grok: a conversation of the backend's export. `foreign.py` calls it.

{"conversation": {"id", "title"},
     "responses": [{"response": {"_id", "sender", "message", "parent_response_id"}}, …]}
"""

from collections.abc import Iterator
from functools import partial
from typing import Any

from pipelines.formats.exports.dialogue import Dialogue, every_branch
from pipelines.formats.translation import Format, Record, Translation, objects


def _recognises(record: Record) -> bool:
    return isinstance(record.get("conversation"), dict) and isinstance(record.get("responses"), list)


def _translate(record: Record, all_branches: bool) -> Iterator[Translation]:
    responses = objects([one.get("response") for one in objects(record["responses"], "responses")], "responses")
    by_name = {str(one.get("_id") or number): one for number, one in enumerate(responses)}
    names = list(by_name)
    if any(one.get("parent_response_id") for one in responses):
        parents = {name: one.get("parent_response_id") for name, one in by_name.items()}
    else:
        parents = dict(zip(names, [None, *names], strict=False))
    current = names[-1] if names else None
    yield from every_branch(by_name, parents, current, all_branches, partial(_branch, record["conversation"]))


def _branch(about: dict[str, Any], responses: list[dict[str, Any]], name: str) -> Translation:
    dialogue = Dialogue()
    for one in responses:
        role = "user" if str(one.get("sender", "")).lower() == "human" else "assistant"
        if one.get("partial") is True:
            dialogue.stop("interrupted", one)
        else:
            dialogue.say(role, one.get("message"), one)
    models = [one["model"] for one in responses if isinstance(one.get("model"), str)] or [""]
    return dialogue.ended({"id": about.get("id"), "title": about.get("title"), "model": models[-1]}, name)


FORMAT = Format("a Grok export", _recognises, _translate)
