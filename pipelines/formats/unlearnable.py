"""Refuses a conversation of which the record says that its texts are not what a model should learn.

`read.py` asks for the records of a cleaning, unless its recipe says `unlearnable: keep`; supervised training asks about
labels alone (`pipelines/training/records.py`), since it reads weights itself.

    negative_example  `label` of the record or of an answer is false (KTO's ratings)
    media             an image, a sound or a film stands beside the texts
    cut_short         the program that answered stopped at a limit or a filter (`finish_reason: length`)
    zero_weight       a file of an earlier cleaning keeps `weight`, `train` or `loss` of 0 for an answer
"""

from collections.abc import Iterator, Mapping
from typing import Any

from pipelines.formats.logged_answer import END_REASONS
from pipelines.formats.records import NOTHING, BadRecord
from pipelines.formats.shapes import TURN_KEYS, WEIGHTS
from pipelines.records.conversation import Conversation
from services.errors import shown

MEDIA = ("image", "images", "video", "videos", "audio", "audios")
CUT_SHORT = ("length", "max_tokens", "content_filter", "model_length")


def check(conversation: Conversation) -> None:
    """Raises BadRecord for what a cleaning must not keep."""
    check_labels(conversation)
    _check_texts(conversation)


def check_labels(conversation: Conversation) -> None:
    """Raises BadRecord for an answer that people found bad."""
    for where, keys in _said(conversation):
        if _is_no(keys.get("label")):
            raise BadRecord(
                "negative_example", f"{where}label is {shown(keys['label'])}: nobody wants a model to learn it"
            )


def _check_texts(conversation: Conversation) -> None:
    """Raises BadRecord where the texts are not the whole of what was said, or nobody should learn them."""
    for where, keys in _said(conversation):
        for name in MEDIA:
            if keys.get(name) not in NOTHING:
                raise BadRecord("media", f"{where}{name} stands beside the texts; only text can be trained on")
        for name in END_REASONS:
            if keys.get(name) in CUT_SHORT:
                raise BadRecord("cut_short", f"{where}{name} is {shown(keys[name])}: the answer is not whole")
    for where, keys in _of_turns(conversation):
        for name in WEIGHTS:
            if _is_no(keys.get(name)):
                raise BadRecord("zero_weight", f"{where}{name} is {shown(keys[name])}; nobody should learn this answer")


def _said(conversation: Conversation) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """(where, keys) of the record and of its turns."""
    yield "", conversation.extra
    yield from _of_turns(conversation)


def _of_turns(conversation: Conversation) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Answers alone have labels and weights. Where steps cut turns, nobody can tell whose keys these are: all count."""
    kept = conversation.extra.get(TURN_KEYS)
    told = kept if isinstance(kept, list) else []
    aligned = len(told) == len(conversation.turns)
    for number, keys in enumerate(told):
        if isinstance(keys, Mapping):
            is_answer = not aligned or conversation.turns[number].role == "assistant"
            names = keys.keys() if is_answer else keys.keys() - {"label", *WEIGHTS}
            yield f"turn {number}: ", {name: keys[name] for name in names}


def _is_no(value: Any) -> bool:
    return isinstance(value, bool | int | float) and value == 0
