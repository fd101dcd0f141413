"""Log probabilities in the journal: every reader has each at its place, once, whatever is lost, late or repeated."""

from dataclasses import replace

from services.chat.logprobs import Logprobs, PlacedLogprob
from services.chat.reader import JournalReader, JournalView, Text
from services.chat.said import Said
from services.wire.messages import Event, TokenLogprob


def entry(token: str) -> TokenLogprob:
    return (token, -0.5, ((token, -0.5), ("x", -2.0)))


def event(off: int, toff: int, text: str, tokens: str, *places: tuple[int, int], nonce: str = "a") -> Event:
    """Tokens of one letter each."""
    ids = tuple(map(ord, tokens))
    return Event("tokens", nonce, off, toff, ids, text, logprobs=tuple(map(entry, tokens)), places=places)


HELD = event(0, 0, "a", "abc", (0, 0))  # the text of two tokens is held back
RELEASED = event(3, 1, "bcd", "d", (1, 1), (2, 2), (3, 3))
EVENTS = [HELD, RELEASED, Event("finished", "a", 4, 4, code="stop")]
WHOLE = tuple(PlacedLogprob(offset, entry(token)) for offset, token in enumerate("abcd"))


def live(reader: JournalReader, *events: Event) -> Logprobs:
    for each in events:
        reader.live(each, 0.0)
    return tuple(reader.logprobs.placed)


def begun(*events: Event) -> JournalReader:
    """A reader that has read these."""
    reader = JournalReader(0.0)
    reader.reading()
    reader.journal([Event("begin", "a"), *events], 0.0)
    return reader


def test_a_token_whose_text_is_held_back_is_told_with_its_text() -> None:
    reader = begun()
    assert live(reader, HELD) == WHOLE[:1]
    assert live(reader, RELEASED) == WHOLE


def test_live_and_from_the_journal_they_are_the_same_also_where_an_event_comes_again() -> None:
    assert tuple(JournalView.of(EVENTS).logprobs.placed) == WHOLE
    assert live(begun(HELD), HELD, RELEASED, RELEASED) == WHOLE


def test_the_worker_that_takes_over_places_tokens_of_the_one_before() -> None:
    taken = [HELD, Event("begin", "b", 3, 1), replace(RELEASED, nonce="b")]
    assert tuple(JournalView.of(taken).logprobs.placed) == WHOLE


def test_what_redis_lost_and_another_worker_said_otherwise_is_forgotten() -> None:
    reader = begun(HELD, RELEASED)
    other = event(1, 1, "XY", "XY", (1, 1), (2, 2), nonce="b")
    reader.reading()
    reader.journal([Event("begin", "a"), event(0, 0, "a", "a", (0, 0)), Event("begin", "b", 1, 1), other], 0.0)
    assert [(each.offset, each.token[0]) for each in reader.logprobs.placed] == [(0, "a"), (1, "X"), (2, "Y")]


def test_what_was_told_forgets_them_with_the_text() -> None:
    said = Said()
    said.take(Text(0, "a", "abcd", logprobs=WHOLE))
    said.rewind(2)
    assert tuple(said.logprobs) == WHOLE[:2]


def test_an_event_has_them_on_the_wire_only_where_they_are_asked_for() -> None:
    assert Event.decode(RELEASED.encode()) == RELEASED
    assert Event.decode(replace(HELD, logprobs=(None, entry("é"))).encode()).logprobs == (None, entry("é"))
    plain = Event("tokens", "a", 0, 0, (1,), "a")
    assert b"logprobs" not in plain.encode()
    assert b"places" not in plain.encode()
