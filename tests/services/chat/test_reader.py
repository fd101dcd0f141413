"""The journal reader: whatever is lost, late or repeated, what a client applied ends as the journal's text."""

from dataclasses import replace

import pytest
import redis
from hypothesis import given, settings
from hypothesis import strategies as st

from services.chat.answer import Answer
from services.chat.follower import Follower
from services.chat.journal import Head
from services.chat.reader import AUDIT_INTERVAL_S, HEAD_INTERVAL_S, Done, JournalReader, Rewind, Status, Text
from services.chat.requests import Requests
from services.errors import UnknownModel
from services.wire.keys import Keys
from services.wire.messages import ChatRequest, Event, Message

LEASE_S = 3.0


class Client:
    """Applies what its follower tells, as docs/protocol.md says that a client does."""

    def __init__(self, answer: Answer, text: str = "", nonce: str = "") -> None:
        self.answer = answer
        self.follower = Follower(answer, lambda: None, len(text), nonce)
        self.text = text
        self.kinds = ["?"] * len(text)  # of each character
        self.nonce = nonce
        self.rewinds: list[int] = []
        self.statuses: list[Status] = []
        self.done: list[Done] = []

    def take(self) -> "Client":
        """Everything that there is now."""
        while (event := self.follower.next()) is not None:
            assert not self.done, f"{event} after the end"
            if isinstance(event, Text):
                assert event.offset == len(self.text), "a gap or a repeat"
                self.text += event.text
                self.kinds += [event.part] * len(event.text)
                self.nonce = event.nonce
            elif isinstance(event, Rewind):
                self.text = self.text[: event.offset]
                del self.kinds[event.offset :]
                self.nonce = event.nonce
                self.rewinds.append(event.offset)
            elif isinstance(event, Status):
                self.statuses.append(event)
            else:
                self.done.append(event)
        return self


def unread() -> tuple[JournalReader, Answer]:
    """An answer of which nothing is known; the tests are its hands."""
    answer = Answer(Requests(redis.Redis(), Keys("unused")), "r1", "ann", 0.0)
    return answer.reader, answer


def begin(nonce: str, toff: int = 0) -> Event:
    return Event("begin", nonce, toff, toff)


def tokens(nonce: str, toff: int, text: str) -> Event:
    return Event("tokens", nonce, toff, toff, tuple(range(len(text))), text)


def finished(nonce: str, toff: int, text: str = "") -> Event:
    return Event("finished", nonce, toff, toff, text=text, code="stop")


def head(status: str, nonce: str, toff: int) -> Head:
    return Head(status, "u", "m", nonce, toff, toff, 1, 1, 1, "w", "", b"", 0, 0, 0, 0)


def read(reader: JournalReader, events: list[Event], now: float) -> None:
    reader.reading()
    reader.journal(events, now)


def following(events: list[Event]) -> tuple[JournalReader, Client]:
    """A reader that has read this journal, and a client that has taken it."""
    reader, answer = unread()
    assert reader.wants(0.0) == "journal"
    read(reader, events, 0.0)
    return reader, Client(answer).take()


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
def test_every_client_ends_with_the_journals_text(
    history: tuple[list[Event], list[tuple[str, object]]], data: st.DataObject
) -> None:
    """Clients take what there is whenever they like, and go on from their cursor here or in another process."""
    final, script = history
    reader, answer = unread()
    clients = [Client(answer), Client(answer)]
    journal: list[Event] = []
    now, lost = 0.0, False
    for what, value in script:
        now += 0.1
        if what == "state":
            lost = lost or journal != value[: len(journal)]  # type: ignore[index]
            journal = value  # type: ignore[assignment]
        elif what == "live":
            reader.live(value, now)  # type: ignore[arg-type]
        if what == "read" or (reader.wants(now) == "journal" and data.draw(st.booleans())):
            read(reader, journal, now)
        for client in clients:
            if data.draw(st.booleans()):
                client.take()
        event = data.draw(st.integers(0, 19))
        if event == 0:  # a reload: the same process
            client = clients[0]
            client.follower.resume(len(client.text), client.nonce)
        elif event == 1:  # another process, where nobody has followed it yet
            reader, answer = unread()
            for client in clients:
                client.follower = Follower(answer, lambda: None, len(client.text), client.nonce)
    lost = lost or journal != final[: len(journal)]
    read(reader, final, now)
    for client in clients:
        client.take()
        assert client.text == "".join(event.text for event in final)
        assert len(client.done) == 1 and client.done[0].offset == len(client.text)
        assert lost or not client.rewinds


def test_live_events_continue_the_text_without_a_read() -> None:
    reader, client = following([begin("a"), tokens("a", 0, "he")])
    reader.live(tokens("a", 2, "llo"), 1.0)
    assert client.take().text == "hello"
    reader.live(finished("a", 5, "!"), 1.0)
    assert client.take().text == "hello!" and client.rewinds == [] and client.done[0].code == "stop"


def test_a_repeat_is_dropped_and_an_overlap_trimmed() -> None:
    reader, client = following([begin("a"), tokens("a", 0, "hell")])
    reader.live(tokens("a", 0, "hell"), 1.0)
    assert client.take().text == "hell"
    reader.live(tokens("a", 2, "llo"), 1.0)
    assert client.take().text == "hello" and reader.wants(1.0) is None


def test_a_gap_asks_for_the_journal() -> None:
    reader, client = following([begin("a")])
    reader.live(tokens("a", 3, "lo"), 1.0)
    assert client.take().text == "" and reader.wants(1.0) == "journal"


def test_another_owner_is_compared_and_not_believed_by_length() -> None:
    """The offsets of two owners may fit though their texts differ."""
    reader, client = following([begin("a"), tokens("a", 0, "abc")])
    reader.live(begin("b", 3), 1.0)
    reader.live(tokens("b", 3, "d"), 1.0)
    assert client.take().text == "abc" and reader.wants(1.0) == "journal"
    read(reader, [begin("a"), tokens("a", 0, "aX"), begin("b", 2), tokens("b", 2, "Yd")], 1.0)
    assert client.take().text == "aXYd" and client.rewinds == [1]


def test_a_journal_that_lost_its_tail_is_waited_for() -> None:
    reader, client = following([begin("a"), tokens("a", 0, "abc")])
    reader.resubscribed()
    read(reader, [begin("a"), tokens("a", 0, "a")], 1.0)
    assert client.take().text == "abc"
    reader.live(tokens("a", 1, "bcd"), 1.0)
    assert client.take().text == "abcd" and client.rewinds == []


def test_an_event_that_arrives_during_a_read_is_not_forgotten() -> None:
    reader, answer = unread()
    reader.reading()
    reader.live(tokens("a", 2, "cd"), 0.0)  # published after the read's snapshot
    reader.journal([begin("a"), tokens("a", 0, "ab")], 0.0)
    assert Client(answer).take().text == "ab" and reader.wants(0.0) == "journal"


def test_a_resumed_cursor_is_trusted_as_far_as_its_nonce_wrote() -> None:
    journal = [begin("a"), tokens("a", 0, "abc"), begin("b", 3), tokens("b", 3, "def")]
    for offset, nonce, keep in [(2, "a", 2), (3, "a", 3), (5, "b", 5), (5, "a", 3), (4, "unknown", 0), (0, "", 0)]:
        reader, answer = unread()
        client = Client(answer, "x" * offset, nonce)
        assert client.take().text == "x" * offset and client.rewinds == []
        read(reader, journal, 0.0)
        assert client.take().text == "x" * keep + "abcdef"[keep:]
        assert client.rewinds == ([keep] if keep < offset else [])
        assert reader.trusted(6, "b") == 6 and reader.trusted(9, "a") == 3 and reader.trusted(2, "zzz") == 0


@pytest.mark.parametrize(("text", "nonce"), [("abcde", "a"), ("abcde", "b"), ("abc", "b")])
def test_a_cursor_that_is_ahead_waits_for_a_read_that_began_after_it_came(text: str, nonce: str) -> None:
    """A process that lagged judged a cursor of another by what it knew, and took back what Redis had never lost."""
    reader, first = following([begin("a"), tokens("a", 0, "ab")])
    reader.resubscribed()
    reader.reading()  # its snapshot is older than the cursor
    second = Client(first.answer, text, nonce)
    reader.journal([begin("a"), tokens("a", 0, "ab")], 1.0)
    assert second.take().rewinds == [] and reader.wants(1.0) == "journal"
    tail = [tokens("a", 2, "cde")] if nonce == "a" else [begin("b", 2), tokens("b", 2, "cde")]
    read(reader, [begin("a"), tokens("a", 0, "ab"), *tail], 1.0)
    assert second.take().rewinds == [] and second.text == first.take().text == "abcde"


def test_a_cursor_that_is_ahead_of_the_journal_itself_is_rewound() -> None:
    reader, first = following([begin("a"), tokens("a", 0, "ab")])
    second = Client(first.answer, "abXY", "lost")
    assert second.take().rewinds == []
    read(reader, [begin("a"), tokens("a", 0, "ab")], 1.0)
    assert second.take().rewinds == [0] and second.text == "ab"


def test_of_several_rewinds_a_client_that_was_away_is_told_the_lowest() -> None:
    reader, client = following([begin("a"), tokens("a", 0, "abcd")])
    for text in ("aX", "aXY", "abZ"):
        read(reader, [begin(text), tokens(text, 0, text)], 1.0)
    assert client.take().text == "abZ" and client.rewinds == [1]


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
    reader.live(Event("beat", "a"), 1.9)
    assert reader.wants(2.1) is None and client.take().text == ""


def test_running_is_told_once() -> None:
    reader, client = following([])
    assert client.statuses == []
    reader.live(begin("a"), 1.0)
    read(reader, [begin("a")], 1.0)
    assert client.follower.next() == Status("running")
    reader.live(tokens("a", 0, "x"), 1.0)
    assert client.follower.next() == Text(0, "a", "x") and client.follower.next() is None


@pytest.mark.parametrize("live", [True, False])
def test_what_the_prompt_leaves_out_is_told_live_and_from_the_journal(live: bool) -> None:
    context = {"prompt_tokens": 90, "omitted_messages": 4}
    reader, answer = unread()
    client = Client(answer)
    told = replace(tokens("a", 0, "ab"), context=context)
    reader.reading()
    reader.journal([begin("a")] if live else [begin("a"), told], 0.0)
    if live:
        assert client.take().statuses == [Status("running")]
        reader.live(told, 0.1)
    reader.live(tokens("a", 2, "c"), 0.2)
    assert client.take().statuses[-1] == Status("running", context=context)
    assert client.text == "abc" and len(client.statuses) == 1 + live


def test_a_place_in_line_is_told_when_it_changes_and_never_after_the_start() -> None:
    reader, client = following([])
    for status in (Status("queued", 2), Status("queued", 2), Status("queued", 1, 3)):
        reader.queued(status)
        client.take()
    read(reader, [begin("a")], 1.0)
    reader.queued(Status("queued", 1, 3))
    assert client.take().statuses == [Status("queued", 2), Status("queued", 1, 3), Status("running")]


def test_a_silent_owner_is_told_as_an_interruption_until_somebody_writes_again() -> None:
    """Who had half an answer was told nothing for 25 s, or that the question waits in the queue."""
    reader, client = following([begin("a"), tokens("a", 0, "half")])
    assert client.take().statuses == [Status("running")]
    reader.silent(LEASE_S * 0.8)
    assert client.take().statuses == [Status("running")], "it may yet speak"
    reader.silent(LEASE_S)
    reader.queued(Status("queued", 0))
    assert client.take().statuses == [Status("running"), Status("interrupted")] and reader.running
    reader.live(begin("b", 4), 9.0)
    read(reader, [begin("a"), tokens("a", 0, "half"), begin("b", 4)], 9.0)
    reader.silent(9.5)
    assert client.take().statuses[2:] == [Status("running")] and client.text == "half"
    reader.silent(20.0)
    client.take()
    reader.live(tokens("b", 4, " and half"), 20.5)
    assert client.take().statuses[3:] == [Status("interrupted"), Status("running")] and client.text == "half and half"
    reader.live(finished("b", 13), 21.0)
    reader.silent(40.0)
    assert len(client.take().statuses) == 5, "after the end nothing is interrupted"


def test_a_longer_lease_makes_an_interruption_later() -> None:
    requests = Requests(redis.Redis(), Keys("unused"), lease_s=60)
    reader = Answer(requests, "r1", "ann", 0.0).reader
    read(reader, [begin("a")], 1.0)
    reader.silent(50.0)
    assert reader.status == Status("running")
    reader.silent(53.0)
    assert reader.status == Status("interrupted")


def test_a_terminal_that_is_shorter_than_what_was_shown_rewinds() -> None:
    """Redis lost the tail, and then the request was cancelled: the answer is what the journal says."""
    reader, client = following([begin("a"), tokens("a", 0, "abcdef")])
    cancelled = Event("cancelled", "a", 3, 3, code="cancelled")
    reader.live(cancelled, 1.0)
    assert not client.take().done and reader.wants(1.0) == "journal"
    read(reader, [begin("a"), tokens("a", 0, "abc"), cancelled], 1.0)
    assert client.take().text == "abc" and client.rewinds == [3] and client.done[0].status == "cancelled"


def test_an_answer_that_is_gone_ends_where_its_reader_stands() -> None:
    """Nothing says that what was shown was wrong; a page that came back a day later waited for ever."""
    reader, answer = unread()
    client = Client(answer, "shown yesterday", "a")
    reader.gone("gone", "it has expired")
    assert client.take().rewinds == [] and client.text == "shown yesterday"
    assert [(done.status, done.offset) for done in client.done] == [("failed", len(client.text))]


def test_an_unknown_request_is_looked_for_every_two_seconds_and_not_in_a_hot_loop(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """From the second second on, an answer without a state wanted its head again as soon as it had not found it."""
    reader, answer = unread()
    looks: list[float] = []
    monkeypatch.setattr(answer._requests.journal, "read", lambda rid: looks.append(now))
    monkeypatch.setattr(answer._requests.journal, "head", lambda rid: looks.append(now))
    for tick in range(4 * 12):
        now = tick / 4
        while answer.due(now):
            answer.poll(now)
            assert len(looks) < 20, f"a hot loop at {now} s"
    assert reader.end is not None and reader.end.code == "gone"
    assert len(looks) <= 1 + 12 / HEAD_INTERVAL_S


def test_a_follower_in_another_thread_never_shows_text_that_is_being_taken_back() -> None:
    """Between the note of a rewind and the new text, a follower heeded the rewind and then told the old text again."""

    class Interrupted(list[int]):
        def append(self, keep: int) -> None:
            super().append(keep)
            client.take()  # as another thread may, at just this point

    reader, answer = unread()
    reader.reading()
    reader.journal([begin("a"), tokens("a", 0, "abcOLDest")], 1)
    client = Client(answer).take()
    reader.rewinds = Interrupted(reader.rewinds)
    reader.reading()
    reader.journal([begin("b"), tokens("b", 0, "abcnewest")], 2)
    assert client.take().text == "abcnewest" and client.rewinds == [3]


def test_the_first_copy_of_a_request_is_the_one_that_is_submitted_again() -> None:
    """Redis answers an id that is submitted twice once, with the first payload."""
    _, answer = unread()
    first = ChatRequest("r1", "ann", "m", (Message("user", "one"),))
    answer.submitted(first)
    answer.submitted(ChatRequest("r1", "ann", "m", (Message("user", "two"),)))
    assert answer._request is first


def test_a_submitter_waits_for_workers_to_come_back_before_its_lost_request_fails(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An emptied server knows no model until a worker announces it again; the request was given up in that second."""
    reader, answer = unread()
    request = ChatRequest("r1", "ann", "m", (Message("user", "hello"),))
    answer.submitted(request)
    submitted: list[float] = []

    def submit(given: ChatRequest, note: bytes) -> None:
        submitted.append(now)
        if now < 3:
            raise UnknownModel("no worker has announced m")

    for name in ("read", "head"):
        monkeypatch.setattr(answer._requests.journal, name, lambda rid: None)
    monkeypatch.setattr(answer._requests, "submit", submit)
    for tick in range(4 * 4):
        now = tick / 4
        if answer.due(now):
            answer.poll(now)
    assert submitted == [0.0, 2.0, 4.0][: len(submitted)] and reader.end is None
    now = 4.0
    answer.poll(now)
    assert submitted == [0.0, 2.0, 4.0] and reader.wants(now) == "journal", "accepted: the journal is read anew"
    monkeypatch.setattr(answer._requests, "submit", lambda given, note: (_ for _ in ()).throw(UnknownModel("none")))
    with pytest.raises(UnknownModel):
        answer.poll(10.0)


def parted(nonce: str, toff: int, text: str, *parts: tuple[int, str]) -> Event:
    return replace(tokens(nonce, toff, text), parts=parts)


PARTED = [begin("n1"), parted("n1", 0, "hm", (0, "reasoning")), parted("n1", 2, "m. 4", (4, "answer"))]
KINDS = ["reasoning"] * 4 + ["answer"] * 2


def test_each_text_is_told_with_its_part_and_the_end_with_all() -> None:
    reader, client = following(PARTED)
    assert (client.text, client.kinds) == ("hmm. 4", KINDS)
    reader.live(replace(finished("n1", 6, "!"), parts=((6, "reasoning"),)), 0.0)
    client.take()
    assert client.kinds[-1] == "reasoning"
    assert client.done[0].parts == ((0, "reasoning"), (4, "answer"), (6, "reasoning"))


def test_parts_come_live_as_from_the_journal_and_a_repeat_changes_none() -> None:
    reader, client = following(PARTED[:1])
    for event in (*PARTED[1:], *PARTED[1:], PARTED[1]):
        reader.live(event, 0.0)
    client.take()
    assert (client.text, client.kinds, reader.parts) == ("hmm. 4", KINDS, ((0, "reasoning"), (4, "answer")))


def test_a_cursor_in_the_middle_of_a_part_goes_on_with_its_kind() -> None:
    _, client = following(PARTED)
    late = Client(client.answer, "hm", "n1").take()
    assert late.kinds == ["?", "?", "reasoning", "reasoning", "answer", "answer"]
    bounded = Follower(client.answer, lambda: None)
    told = [bounded.next(3) for _ in range(3)]
    assert [(event.text, event.part) for event in told if isinstance(event, Text)] == [("hmm", "reasoning")]


def test_a_rewind_takes_parts_back() -> None:
    reader, client = following(PARTED)
    read(reader, [begin("n1"), PARTED[1], begin("n2", 2), parted("n2", 2, " So 5", (5, "answer"))], 0.0)
    client.take()
    assert (client.text, client.rewinds) == ("hm So 5", [2])
    assert client.kinds == ["reasoning"] * 5 + ["answer"] * 2
    assert reader.parts == ((0, "reasoning"), (5, "answer"))


def test_an_owner_that_writes_a_tail_again_tells_its_parts_again() -> None:
    again = [*PARTED, begin("n2", 2), parted("n2", 2, "!", (2, "answer"))]
    _, client = following(again)
    assert (client.text, client.kinds) == ("hm!", ["reasoning", "reasoning", "answer"])


@pytest.mark.parametrize(("after", "kept"), [("me", 2), ("m", 2), ("my", 2), ("so", 0)])
def test_another_owner_may_write_the_same_words_as_another_part(after: str, kept: int) -> None:
    """Redis lost its tail; what was shown as reasoning stayed so where the answer began with the same letters."""
    reader, client = following([begin("n1"), parted("n1", 0, "hmmy", (0, "reasoning"))])
    reader.resubscribed()
    written = "hm" if kept else ""
    first = [begin("n2"), parted("n2", 0, written, (0, "reasoning"))] if kept else [begin("n2")]
    read(reader, [*first, parted("n2", len(written), after, (len(written), "answer"))], 1.0)
    client.take()
    assert (client.text, client.kinds) == (written + after, ["reasoning"] * len(written) + ["answer"] * len(after))
    assert client.rewinds == [kept]


def test_an_answer_of_a_model_that_does_not_reason_has_no_parts() -> None:
    _, client = following([begin("n1"), tokens("n1", 0, "4"), finished("n1", 1)])
    assert (client.kinds, client.done[0].parts) == (["answer"], None)
