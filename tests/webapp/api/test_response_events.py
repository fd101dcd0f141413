"""The numbers of a response's events: equal for all readers, however its text was cut and wherever they begin."""

from collections.abc import Iterable
from itertools import pairwise
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from services.chat.reader import Done, Text
from services.openai.response_objects import ResponseFrames
from services.responses.record import ResponseRecord
from services.wire.messages import Message, Part
from tests.webapp.api.responses_client import is_delta, read
from webapp.api.response_events import ResponseEvents

ENDS = [("finished", "stop"), ("finished", "length"), ("failed", "engine_error"), ("cancelled", "cancelled")]
Pieces = list[tuple[str, str]]  # kind and text of each part; neighbours are of different kinds


def pieces_of(texts: list[str], first: int) -> Pieces:
    return [(("reasoning", "answer")[(first + index) % 2], text) for index, text in enumerate(texts)]


pieces = st.builds(pieces_of, st.lists(st.text("ab𝄞\n", min_size=1, max_size=8), max_size=4), st.integers(0, 1))
cuts = st.sets(st.integers(0, 40))


def frames_of(*, background: bool) -> ResponseFrames:
    record = ResponseRecord(1_700_000_000, "m", (Message("user", "hi"),), 1.0, 1.0, background=background)
    return ResponseFrames("resp_r", record)


def told(parts: Pieces, cut_at: Iterable[int]) -> list[Text]:
    """The events of a follower that hears the text in pieces that end at these code points."""
    texts: list[Text] = []
    offset = 0
    for kind, text in parts:
        ends = sorted({end for end in cut_at if offset < end < offset + len(text)} | {offset + len(text)})
        for end in ends:
            texts.append(Text(offset, "n", text[len(text) - (ends[-1] - offset) :][: end - offset], kind))
            offset = end
    return texts


def done_of(parts: Pieces, status: str, code: str) -> Done:
    starts: list[Part] = []
    offset = 0
    for kind, text in parts:
        starts.append((offset, kind))
        offset += len(text)
    usage = {"prompt_tokens": 3, "completion_tokens": offset, "total_ms": 2_000}
    return Done(status, offset, code, "", usage, tuple(starts) or None)


def stream(
    parts: Pieces, cut_at: Iterable[int], end: tuple[str, str], after: int = -1, *, background: bool = True
) -> list[dict[str, Any]]:
    events = ResponseEvents(frames_of(background=background), after)
    frames = list(events.opening())
    for text in told(parts, cut_at):
        frames += events.text(text)
    return [*frames, *events.end(done_of(parts, *end))]


@given(pieces, cuts, cuts, st.sampled_from(ENDS), st.booleans())
def test_readers_who_hear_the_text_cut_differently_number_alike(
    parts: Pieces, one: set[int], other: set[int], end: tuple[str, str], background: bool
) -> None:
    first = stream(parts, one, end, background=background)
    second = stream(parts, other, end, background=background)
    assert read(first) == read(second)
    at = {frame["sequence_number"]: frame for frame in second}
    for frame in first:
        same = at.get(frame["sequence_number"])
        assert same is None or (same["type"], same.get("item_id")) == (frame["type"], frame.get("item_id"))


@given(pieces, cuts, st.sampled_from(ENDS), st.booleans())
def test_numbers_grow_and_the_text_is_whole(
    parts: Pieces, one: set[int], end: tuple[str, str], background: bool
) -> None:
    frames = stream(parts, one, end, background=background)
    numbers = [frame["sequence_number"] for frame in frames]
    assert numbers == sorted(set(numbers)) and numbers[0] == 0
    shown = read(frames)[1]
    assert list(shown.values()) == [text for _, text in parts]
    dones = [frame for frame in frames if frame["type"].endswith("_text.done")]
    assert [frame["text"] for frame in dones if frame["text"]] == list(shown.values())


@given(pieces, cuts, cuts, st.sampled_from(ENDS), st.data())
def test_whoever_comes_back_after_a_number_gets_exactly_the_rest(
    parts: Pieces, one: set[int], other: set[int], end: tuple[str, str], data: st.DataObject
) -> None:
    first = stream(parts, one, end)
    seen = first[: data.draw(st.integers(1, len(first)))]
    rest = stream(parts, other, end, after=seen[-1]["sequence_number"])
    assert read([*seen, *rest]) == read(first)
    assert all(frame["sequence_number"] > seen[-1]["sequence_number"] for frame in rest)


@given(pieces, cuts, st.data())
def test_after_a_rewind_the_number_leads_to_what_was_kept(parts: Pieces, one: set[int], data: st.DataObject) -> None:
    """Redis lost the end of the text; another worker may write another one."""
    events = ResponseEvents(frames_of(background=True))
    assert list(events.opening())
    for text in told(parts, one):
        assert list(events.text(text))
    length = sum(len(text) for _, text in parts)
    offset = data.draw(st.integers(0, length))
    error = events.rewound(offset)
    cursor = error["sequence_number"]
    kept = "".join(text for _, text in parts)[:offset]
    rest = stream(parts, one, ENDS[0], after=cursor)
    deltas = "".join(frame["delta"] for frame in rest if is_delta(frame))
    assert kept + deltas == "".join(text for _, text in parts)
    assert str(cursor) in error["message"] and error["code"] == error["error"]["code"] == "interrupted"


def with_calls(stretches: list[tuple[str, str]]) -> Pieces:
    """Each stretch is text of the answer (its first text is empty) or a call; neighbours that are text are one."""
    parts: Pieces = []
    for name, text in stretches:
        if name:
            parts += [("call", name), ("arguments", text)]
        elif parts and parts[-1][0] == "answer":
            parts[-1] = ("answer", parts[-1][1] + text)
        else:
            parts.append(("answer", text))
    return parts


calling = st.builds(
    with_calls, st.lists(st.tuples(st.text("fg", max_size=3), st.text("{}𝄞", min_size=1, max_size=6)), max_size=4)
)


@given(calling, cuts, cuts, st.sampled_from(ENDS), st.data())
def test_calls_have_the_same_events_for_all_readers_and_for_those_who_come_back(
    parts: Pieces, one: set[int], other: set[int], end: tuple[str, str], data: st.DataObject
) -> None:
    first = stream(parts, one, end)
    numbers = [frame["sequence_number"] for frame in first]
    assert numbers == sorted(set(numbers))
    assert read(first) == read(stream(parts, other, end))
    told = [frame for frame in first if frame["type"].endswith("call_arguments.done")]
    called = [(name, text) for (kind, name), (_, text) in pairwise(parts) if kind == "call"]
    assert [(frame["name"], frame["arguments"]) for frame in told] == called
    assert list(read(first)[1].values()) == [text for kind, text in parts if kind != "call"]
    seen = first[: data.draw(st.integers(1, len(first)))]
    rest = stream(parts, other, end, after=seen[-1]["sequence_number"])
    assert read([*seen, *rest]) == read(first)


def test_the_numbers_are_those_of_the_table() -> None:
    parts = [("reasoning", "hmm"), ("answer", "no")]
    frames = stream(parts, {1}, ("finished", "stop"))
    assert [(frame["sequence_number"], frame["type"].removeprefix("response.")) for frame in frames] == [
        (0, "created"), (1, "queued"), (2, "in_progress"),
        (3, "output_item.added"), (4, "content_part.added"),
        (5, "reasoning_text.delta"), (7, "reasoning_text.delta"),
        (8, "reasoning_text.done"), (9, "content_part.done"), (10, "output_item.done"),
        (11, "output_item.added"), (12, "content_part.added"), (14, "output_text.delta"),
        (15, "output_text.done"), (16, "content_part.done"), (17, "output_item.done"),
        (18, "completed"),
    ]  # fmt: skip


def test_an_end_without_text_has_the_same_events_for_all() -> None:
    assert [frame["type"].removeprefix("response.") for frame in stream([], (), ("finished", "stop"))][3:] == [
        "output_item.added", "content_part.added",
        "output_text.done", "content_part.done", "output_item.done", "completed",
    ]  # fmt: skip
    for end, kind, status in ((ENDS[2], "failed", "failed"), (ENDS[3], "incomplete", "cancelled")):
        frames = stream([], (), end, background=False)
        assert [frame["sequence_number"] for frame in frames] == [0, 1, 2]
        assert (frames[-1]["type"], frames[-1]["response"]["status"]) == (f"response.{kind}", status)
