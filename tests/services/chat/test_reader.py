"""The journal reader: whatever is lost, late or repeated, what a client applied ends as the journal's text."""

from hypothesis import given, settings
from hypothesis import strategies as st

from services.chat.journal import Head
from services.chat.reader import (
    AUDIT_INTERVAL_S,
    HEAD_INTERVAL_S,
    Done,
    JournalReader,
    ReaderEvent,
    Rewind,
    Status,
    Text,
)
from services.wire.messages import Event


class Client:
    """Applies events as docs/protocol.md tells a client to."""

    def __init__(self, text: str = "") -> None:
        self.text = text
        self.rewinds: list[int] = []
        self.done: list[Done] = []

    def apply(self, events: list[ReaderEvent]) -> "Client":
        for event in events:
            assert not self.done, f"{event} after the end"
            if isinstance(event, Text):
                assert event.offset == len(self.text), "a gap or a repeat"
                self.text += event.text
            elif isinstance(event, Rewind):
                self.text = self.text[: event.offset]
                self.rewinds.append(event.offset)
            elif isinstance(event, Done):
                self.done.append(event)
        return self


def begin(nonce: str, toff: int = 0) -> Event:
    return Event("begin", nonce, toff, toff)


def tokens(nonce: str, toff: int, text: str) -> Event:
    return Event("tokens", nonce, toff, toff, tuple(range(len(text))), text)


def finished(nonce: str, toff: int, text: str = "") -> Event:
    return Event("finished", nonce, toff, toff, text=text, code="stop")


def head(status: str, nonce: str, toff: int) -> Head:
    return Head(status, "u", "m", nonce, toff, toff, 1, 1, 1, "w", "", b"", 0, 0, 0, 0)


def following(events: list[Event]) -> tuple[JournalReader, Client]:
    """A reader that has read this journal."""
    reader, client = JournalReader(0.0), Client()
    assert reader.wants(0.0) == "journal"
    reader.reading()
    client.apply(reader.journal(events, 0.0))
    return reader, client


@st.composite
def histories(draw: st.DrawFn) -> tuple[list[Event], list[tuple[str, object]]]:
    """What a server goes through: owners come, write, lose their tail; some live events arrive, some reads happen."""
    journal: list[Event] = []
    script: list[tuple[str, object]] = [("read", [])]
    nonce, text = "", ""
    for step in range(draw(st.integers(1, 25))):
        what = draw(st.sampled_from(["begin", "tokens", "tokens", "tokens", "lose", "read", "repeat"]))
        if what == "begin" or not nonce:
            nonce = f"n{step}"
            event = begin(nonce, len(text))
        elif what == "tokens":
            added = draw(st.text("ab𝄞", max_size=3))
            event = tokens(nonce, len(text), added)
            text += added
        elif what == "lose" and len(journal) > 1:
            del journal[draw(st.integers(1, len(journal) - 1)) :]
            text = "".join(entry.text for entry in journal)
            nonce = ""  # a successor begins
            script.append(("read", None))
            continue
        elif what == "repeat" and journal:
            script.append(("live", draw(st.sampled_from(journal))))
            continue
        else:
            script.append(("read", None))
            continue
        journal.append(event)
        script.append(("state", list(journal)))
        if draw(st.booleans()):
            script.append(("live", event))
    journal.append(finished(nonce or "n", len(text), draw(st.text("ab", max_size=2))))
    return journal, script


@settings(max_examples=400, deadline=None)
@given(histories(), st.data())
def test_the_client_ends_with_the_journals_text(
    history: tuple[list[Event], list[tuple[str, object]]], data: st.DataObject
) -> None:
    final, script = history
    reader, client = JournalReader(0.0), Client()
    journal: list[Event] = []
    now = 0.0
    for what, value in script:
        now += 0.1
        if what == "state":
            journal = value  # type: ignore[assignment]
        elif what == "live":
            client.apply(reader.live(value, now))  # type: ignore[arg-type]
        if what == "read" or (reader.wants(now) == "journal" and data.draw(st.booleans())):
            reader.reading()
            client.apply(reader.journal(journal, now))
        if data.draw(st.integers(0, 9)) == 0 and reader.ready:  # a reload: a new reader from the cursor
            reader = JournalReader(now, offset=len(client.text), nonce=reader.nonce)
    reader.reading()
    client.apply(reader.journal(final, now))
    assert client.text == "".join(event.text for event in final)
    assert len(client.done) == 1 and client.done[0].offset == len(client.text)


def test_live_events_continue_the_text_without_a_read() -> None:
    reader, client = following([begin("a"), tokens("a", 0, "he")])
    client.apply(reader.live(tokens("a", 2, "llo"), 1.0))
    client.apply(reader.live(finished("a", 5, "!"), 1.0))
    assert client.text == "hello!" and client.rewinds == [] and client.done[0].code == "stop"


def test_a_repeat_is_dropped_and_an_overlap_trimmed() -> None:
    reader, client = following([begin("a"), tokens("a", 0, "hell")])
    client.apply(reader.live(tokens("a", 0, "hell"), 1.0))
    client.apply(reader.live(tokens("a", 2, "llo"), 1.0))
    assert client.text == "hello" and reader.wants(1.0) is None


def test_a_gap_asks_for_the_journal() -> None:
    reader, client = following([begin("a")])
    client.apply(reader.live(tokens("a", 3, "lo"), 1.0))
    assert client.text == "" and reader.wants(1.0) == "journal"


def test_another_owner_is_compared_and_not_believed_by_length() -> None:
    """The offsets of two owners may fit though their texts differ."""
    reader, client = following([begin("a"), tokens("a", 0, "abc")])
    client.apply(reader.live(begin("b", 3), 1.0))
    client.apply(reader.live(tokens("b", 3, "d"), 1.0))
    assert client.text == "abc" and reader.wants(1.0) == "journal"
    reader.reading()
    client.apply(reader.journal([begin("a"), tokens("a", 0, "aX"), begin("b", 2), tokens("b", 2, "Yd")], 1.0))
    assert client.text == "aXYd" and client.rewinds == [1]


def test_a_journal_that_lost_its_tail_is_waited_for() -> None:
    reader, client = following([begin("a"), tokens("a", 0, "abc")])
    reader.resubscribed()
    reader.reading()
    client.apply(reader.journal([begin("a"), tokens("a", 0, "a")], 1.0))
    client.apply(reader.live(tokens("a", 1, "bcd"), 1.0))
    assert client.text == "abcd" and client.rewinds == []


def test_an_event_that_arrives_during_a_read_is_not_forgotten() -> None:
    reader, client = JournalReader(0.0), Client()
    reader.reading()
    client.apply(reader.live(tokens("a", 2, "cd"), 0.0))  # published after the read's snapshot
    client.apply(reader.journal([begin("a"), tokens("a", 0, "ab")], 0.0))
    assert client.text == "ab" and reader.wants(0.0) == "journal"


def test_a_resumed_cursor_is_trusted_as_far_as_its_nonce_wrote() -> None:
    journal = [begin("a"), tokens("a", 0, "abc"), begin("b", 3), tokens("b", 3, "def")]
    for offset, nonce, keep in [(2, "a", 2), (3, "a", 3), (5, "b", 5), (5, "a", 3), (4, "unknown", 0), (0, "", 0)]:
        reader, client = JournalReader(0.0, offset=offset, nonce=nonce), Client("x" * offset)
        client.apply(reader.journal(journal, 0.0))
        assert client.text == "x" * keep + "abcdef"[keep:]
        assert client.rewinds == ([keep] if keep < offset else [])
        assert reader.trusted(6, "b") == 6 and reader.trusted(9, "a") == 3 and reader.trusted(2, "zzz") == 0


def test_silence_polls_the_head_and_then_audits_the_queue() -> None:
    reader, _ = following([begin("a"), tokens("a", 0, "abc")])
    assert reader.wants(HEAD_INTERVAL_S - 0.1) is None
    assert reader.wants(HEAD_INTERVAL_S) == "head"
    reader.head(head("running", "a", 3), HEAD_INTERVAL_S)
    assert reader.wants(HEAD_INTERVAL_S + 0.1) is None
    assert reader.wants(AUDIT_INTERVAL_S) == "audit"
    reader.audited(AUDIT_INTERVAL_S)
    for lost in (head("finished", "a", 3), head("running", "a", 4), head("running", "b", 3)):
        reader, _ = following([begin("a"), tokens("a", 0, "abc")])
        reader.head(lost, 1.0)
        assert reader.wants(1.0) == "journal"


def test_a_beat_is_a_sign_of_life_and_no_text() -> None:
    reader, client = following([begin("a")])
    client.apply(reader.live(Event("beat", "a"), 1.9))
    assert reader.wants(2.1) is None and client.text == ""


def test_running_is_told_once() -> None:
    reader = JournalReader(0.0)
    assert reader.journal([], 0.0) == []
    reader.live(begin("a"), 1.0)
    assert reader.journal([begin("a")], 1.0) == [Status("running")]
    assert reader.live(tokens("a", 0, "x"), 1.0) == [Text(0, "a", "x")]


def test_a_terminal_that_is_shorter_than_what_was_shown_rewinds() -> None:
    """Redis lost the tail, and then the request was cancelled: the answer is what the journal says."""
    reader, client = following([begin("a"), tokens("a", 0, "abcdef")])
    cancelled = Event("cancelled", "a", 3, 3, code="cancelled")
    client.apply(reader.live(cancelled, 1.0))
    assert not client.done and reader.wants(1.0) == "journal"
    client.apply(reader.journal([begin("a"), tokens("a", 0, "abc"), cancelled], 1.0))
    assert client.text == "abc" and client.rewinds == [3] and client.done[0].status == "cancelled"
