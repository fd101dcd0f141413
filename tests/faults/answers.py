"""What is wrong with a journal, judged from its events alone. For answers of `tests/faults/worker.py`."""

from collections.abc import Iterable, Sequence

from services.wire.messages import Event
from tests.contracts.protocol_model import ModelAnswer, text_of, token


def text_in(events: Iterable[Event]) -> str:
    """The text of an answer."""
    return "".join(event.text for event in events)


def spliced(rid: str, token_ids: Iterable[int]) -> str:
    """Empty when every token continues all tokens before it, else where it does not."""
    prefix = list(rid.encode())
    for position, token_id in enumerate(token_ids):
        if token(prefix, token_id % 100) != token_id:
            return f"token {position} (of the worker with salt {token_id % 100}) does not continue what is before it"
        prefix.append(token_id)
    return ""


def problems(rid: str, events: Sequence[Event]) -> list[str]:
    """Everything that is wrong with the journal of an ended answer; empty when it is sound."""
    found = [*_gaps(events), *_wrong_texts(events), *_wrong_ends(events)]
    if splice := spliced(rid, [token_id for event in events for token_id in event.ids]):
        found.append(splice)
    return [f"{rid}: {problem}" for problem in found]


def _gaps(events: Sequence[Event]) -> Iterable[str]:
    """Each entry starts where the one before it ends, in tokens and in code points."""
    off = toff = 0
    for event in events:
        if (event.off, event.toff) != (off, toff):
            yield f"{event.kind} entry at {event.off}/{event.toff}, the journal stands at {off}/{toff}"
        off, toff = event.off + len(event.ids), event.toff + len(event.text)


def _wrong_texts(events: Sequence[Event]) -> Iterable[str]:
    """Tokens and text of an entry belong together."""
    for event in events:
        if event.kind == "tokens" and event.text != "".join(map(text_of, event.ids)):
            yield f"the text {event.text!r:.60} is not that of the tokens {event.ids}"
        if event.terminal and event.text not in ("", ModelAnswer().finish()):
            yield f"the end carries {event.text!r:.60}"


def _wrong_ends(events: Sequence[Event]) -> Iterable[str]:
    """Exactly one terminal entry, and nothing after it."""
    ends = [event.kind for event in events if event.terminal]
    if len(ends) != 1:
        yield f"{len(ends)} ends: {ends}"
    elif not events[-1].terminal:
        yield f"{events[-1].kind} after the end"
