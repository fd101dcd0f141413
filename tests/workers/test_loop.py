"""The loop body against a real server: bad requests end with a code, and the worker lives on."""

import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import redis

from services.chat.journal import Head, Journal
from services.chat.queue import RETRY_PLACE, Entry, RequestQueue
from services.chat.requests import Requests
from services.connection.connect import connect
from services.connection.embedded import free_port
from services.errors import EngineError, PromptTooLong
from services.grammar.json_schema import json_object
from services.grammar.notations import EBNF, written
from services.tokens.answer_format import pair
from services.tokens.answer_parser import AnswerParser, MarkedTokens
from services.wire.keys import Keys
from services.wire.messages import ChatRequest, Message
from tests.stand_ins.synthetic_worker import CodePoints, EchoText, call_format, plan, speaking_plan
from workers.answer import Answer, Calls
from workers.assignment import Assignment, WorkerIdentity
from workers.engine import ENGINE_LOST, EngineEvent, ModelLimits, OnEvent, Sampling
from workers.generation import Plan
from workers.leases import Leases
from workers.loop import WorkerLoop
from workers.running import RunningRequests

WID = "w1"


class HandEngine:
    """An engine that does what the test says."""

    name, description = "hand", ""
    limits = ModelLimits(0x110000, 1000, 2, frozenset())

    def __init__(self) -> None:
        self.jobs: dict[str, tuple[list[int], Sampling, OnEvent]] = {}
        self.lives = True
        self.refusal: Exception | None = None

    def start(self) -> None: ...
    def stop(self) -> None: ...
    def alive(self) -> bool:
        return self.lives

    def progress(self) -> float:
        return 0.0

    def submit(self, request_id: str, prompt: list[int], sampling: Sampling, on_event: OnEvent) -> None:
        if self.refusal:
            self.lives = False
            raise self.refusal
        self.jobs[request_id] = (list(prompt), sampling, on_event)

    def cancel(self, request_id: str) -> None:
        self.jobs.pop(request_id, None)

    def emit(self, text: str = "", outcome: str | None = None, reason: str = "", message: str = "") -> None:
        """The same to everything that runs."""
        for request_id, (_, _, on_event) in list(self.jobs.items()):
            if outcome:
                del self.jobs[request_id]
            on_event(EngineEvent(request_id, tuple(map(ord, text)), outcome, reason, message))  # type: ignore[arg-type]


class TightEngine(HandEngine):
    """It has no memory for the prompt of one request, behind so many tokens of its answer, and tells whom it blames."""

    def __init__(self, large: str, *, answered: int = 0) -> None:
        super().__init__()
        self._large = large
        self._answered = answered
        self._table = RunningRequests()

    def submit(self, request_id: str, prompt: list[int], sampling: Sampling, on_event: OnEvent) -> None:
        super().submit(request_id, prompt, sampling, on_event)
        self._table.add(request_id, on_event)
        self._table.begun(request_id)

    def cancel(self, request_id: str) -> None:
        super().cancel(request_id)
        self._table.discard(request_id)

    def step(self) -> None:
        """The next letter of each, or nothing of any."""
        if any(
            name.startswith(self._large) and job[1].num_answered >= self._answered for name, job in self.jobs.items()
        ):
            self.lose()
        for name, (ids, _, _) in list(self.jobs.items()):
            ids.append(ord("hello"[len(ids) - 6]))
            if len(ids) == 11:
                self.jobs.pop(name)
                self._table.end(name, "finished", reason="stop", token_ids=ids[-1:])
            else:
                self._table.tokens(name, ids[-1:])

    def lose(self) -> None:
        self.jobs.clear()
        self._table.lose_all(MemoryError(), "CUDA out of memory")


class Bench:
    """A loop with its server, its engine and a front end."""

    def __init__(self, client: redis.Redis, namespace: str) -> None:
        self.keys = Keys(namespace)
        self.redis = client
        client.sadd(self.keys.models, "m")
        self.requests = Requests(client, self.keys)
        self.queue = RequestQueue(client, self.keys, "m")
        self.journal = Journal(client, self.keys)
        self.engine = HandEngine()
        self.events: list[EngineEvent] = []
        self.plan = plan
        self.loop = self.new_loop(WID, 0.0)

    def new_loop(self, wid: str, now: float) -> WorkerLoop:
        return WorkerLoop(
            self.redis,
            Leases(self.queue, self.journal, wid, lease_s=3.0, now=now),
            self.engine,  # type: ignore[arg-type]
            lambda request: self.plan(request),
            stall_s=10.0,
            slots=2,
            on_event=self.events.append,
            now=now,
        )

    def use(self, engine: "TightEngine") -> "TightEngine":
        self.engine = engine
        self.loop = self.new_loop(WID, 0.0)
        self.loop.slots = 8
        return engine

    def ask(self, rid: str, text: str = "hello") -> None:
        self.requests.submit(ChatRequest(rid, "ann", "m", (Message("user", text),)))

    def accept(self, now: float = 0.0) -> None:
        assert self.take(self.loop, WID, now)

    def take(self, loop: WorkerLoop, wid: str, now: float = 0.0) -> bool:
        """What a worker's taker does; False when nobody waits for it."""
        entry = self.queue.take(wid, suspects=not loop.has_suspect)
        if entry is not None:
            loop.accept(self.assignment(entry, wid), now)
        return entry is not None

    def assignment(self, entry: Entry, wid: str) -> Assignment:
        return Assignment(self.queue, self.journal, WorkerIdentity(wid, 3, 60_000), entry)

    def release(self) -> None:
        """Take all that is held from its owners, as if their leases were over."""
        for seen in self.queue.pending():
            entry = self.queue.look(seen)
            assert entry is not None and self.queue.hand_back(entry, seen.owner, RETRY_PLACE)

    def watch(self, loop: WorkerLoop, start: float, end: float) -> None:
        """Let a loop look after the leases from one time to another, as often as a worker does."""
        for look in range(int((end - start) / 0.25) + 1):
            loop.keep(start + look * 0.25)

    def settle(self, now: float = 0.0) -> None:
        while self.events:
            self.loop.engine_event(self.events.pop(0))
        self.loop.flush(now)
        self.loop.flush(now)  # a script that the server did not know is taught in the first

    def head(self, rid: str) -> Head:
        head = self.journal.head(rid)
        assert head is not None
        return head

    def text(self, rid: str) -> str:
        read = self.journal.read(rid)
        assert read is not None
        return "".join(event.text for event in read[1])


@pytest.fixture
def bench(redis_client: redis.Redis, namespace: str) -> Iterator[Bench]:
    yield Bench(redis_client, namespace)


def test_tokens_are_journalled_and_the_entry_acknowledged_after_the_end(bench: Bench) -> None:
    bench.ask("r1")
    bench.accept()
    bench.engine.emit("hel")
    bench.settle()
    assert bench.text("r1") == "hel" and bench.queue.holds("r1")
    bench.engine.emit("lo", "finished", "stop")
    bench.settle()
    assert bench.text("r1") == "hello" and bench.head("r1").status == "finished"
    assert not bench.queue.holds("r1") and bench.loop.running == {} and bench.loop.tokens == 5


def test_what_the_planner_refuses_ends_with_its_code(bench: Bench) -> None:
    def refuse(request: ChatRequest) -> Plan:
        raise PromptTooLong("the prompt has 9 tokens")

    bench.plan = refuse
    bench.ask("r1")
    bench.accept()
    bench.settle()
    assert (bench.head("r1").status, bench.head("r1").code) == ("failed", "prompt_too_long")
    assert bench.engine.jobs == {}


def test_what_the_prompt_leaves_out_is_told_with_the_first_tokens_of_each_owner_and_with_the_end(bench: Bench) -> None:
    context = {"prompt_tokens": 6, "context_tokens": 1000, "omitted_messages": 4}
    bench.plan = lambda request: replace(plan(request), context_tokens=1000, omitted_messages=4)
    bench.ask("r1")
    bench.accept()
    for text in ("he", "l"):
        bench.engine.emit(text)
        bench.settle()
    bench.release()
    other = bench.new_loop("w2", 0.0)
    assert bench.take(other, "w2")
    bench.engine.emit("lo", "finished", "stop")
    for event in bench.events:
        other.engine_event(event)
    other.flush(0.0)
    read = bench.journal.read("r1")
    assert read is not None
    assert [event.context for event in read[1] if event.kind == "tokens"] == [context, {}, context]
    assert context.items() <= read[1][-1].usage.items()


def test_each_event_names_the_parts_that_begin_in_it_and_the_next_owner_goes_on_with_them(bench: Bench) -> None:
    bench.plan = partial(speaking_plan, reasons=True, calls=None)
    bench.ask("r1", "<think>hm</think>4")
    bench.accept()
    for text in ("<think>h", "m</thi"):
        bench.engine.emit(text)
        bench.settle()
    bench.release()
    other = bench.new_loop("w2", 0.0)
    assert bench.take(other, "w2")
    bench.engine.emit("nk>4", "finished", "stop")
    for event in bench.events:
        other.engine_event(event)
    other.flush(0.0)
    read = bench.journal.read("r1")
    assert read is not None
    told = [(event.text, event.parts) for event in read[1] if event.kind == "tokens"]
    assert told == [("h", ((0, "reasoning"),)), ("m", ()), ("4", ((2, "answer"),))]
    assert read[1][-1].usage["reasoning_tokens"] == len("hm</think>")


def test_a_part_that_begins_in_the_held_back_tail_is_told_with_the_end(bench: Bench) -> None:
    bench.plan = partial(speaking_plan, reasons=True, calls=None)
    bench.ask("r1")
    bench.accept()
    bench.engine.emit("<think></th", "finished", "length")
    bench.settle()
    read = bench.journal.read("r1")
    assert read is not None
    assert (read[1][-1].text, read[1][-1].parts) == ("</th", ((0, "reasoning"),))


def test_a_begun_answer_goes_on_after_a_takeover_where_the_journal_ends(bench: Bench) -> None:
    begun = (Message("user", "hello"), Message("assistant", "he"))
    bench.requests.submit(ChatRequest("r1", "ann", "m", begun, continue_final=True))
    bench.accept()
    bench.engine.emit("l")
    bench.settle()
    bench.release()
    other = bench.new_loop("w2", 0.0)
    assert bench.take(other, "w2")
    ((prompt, sampling, _),) = [job for name, job in bench.engine.jobs.items() if name in other._by_engine_id]
    assert (prompt, sampling.max_new_tokens) == ([3, *map(ord, "llo"), ord("l")], 2)
    bench.engine.emit("lo", "finished", "stop")
    for event in bench.events:
        other.engine_event(event)
    other.flush(0.0)
    assert bench.text("r1") == "llo"


def test_a_bare_prompt_is_planned_and_answered(bench: Bench) -> None:
    bench.requests.submit(ChatRequest("r1", "ann", "m", (), prompt="Once"))
    bench.accept()
    bench.engine.emit("Once", "finished", "stop")
    bench.settle()
    assert (bench.text("r1"), bench.head("r1").status) == ("Once", "finished")


def test_a_bug_in_planning_ends_one_request_and_not_the_worker(bench: Bench) -> None:
    bench.plan = lambda request: 1 // 0  # type: ignore[assignment,return-value]
    bench.ask("r1")
    bench.accept()
    bench.settle()
    assert (bench.head("r1").status, bench.head("r1").code) == ("failed", "internal")
    bench.plan = plan
    bench.ask("r2")
    bench.accept()
    bench.engine.emit("hello", "finished", "stop")
    bench.settle()
    assert bench.text("r2") == "hello"


def test_an_engine_error_ends_the_request_with_its_code_and_keeps_its_text(bench: Bench) -> None:
    bench.ask("r1")
    bench.accept()
    bench.engine.emit("hel")
    bench.engine.emit("", "failed", "out_of_memory", "no room")
    bench.settle()
    assert bench.text("r1") == "hel" and bench.head("r1").code == "out_of_memory"


def test_a_lost_engine_is_no_end_the_answer_goes_on_in_the_next_one(bench: Bench) -> None:
    bench.ask("r1")
    bench.accept()
    bench.engine.emit("hel")
    bench.settle()
    bench.engine.lives = False
    bench.engine.emit("", "failed", ENGINE_LOST)
    bench.settle()
    assert bench.head("r1").status == "running" and bench.engine.jobs == {}
    bench.engine.lives = True
    bench.settle()
    ((prompt, sampling, _),) = bench.engine.jobs.values()
    assert prompt == [5, *map(ord, "hello"), *map(ord, "hel")] and sampling.max_new_tokens == 2
    assert sampling.num_answered == 3, "penalties count the whole answer"
    bench.engine.emit("lo", "finished", "stop")
    bench.settle()
    assert bench.text("r1") == "hello" and bench.head("r1").begins == 2


def test_an_engine_that_dies_at_submission_is_waited_for(bench: Bench) -> None:
    bench.engine.refusal = EngineError("restarting")
    bench.ask("r1")
    bench.accept()
    bench.settle()
    assert bench.head("r1").status == "running"
    bench.engine.refusal, bench.engine.lives = None, True
    bench.settle()
    bench.engine.emit("hello", "finished", "stop")
    bench.settle()
    assert bench.head("r1").status == "finished"


def test_the_batch_mates_of_a_request_that_kills_the_engine_are_answered(bench: Bench) -> None:
    """All of them were begun again together, died together, and were all given up as poison."""
    bench.loop.slots = 8
    rids = [f"r{number}" for number in range(8)]
    for rid in rids:
        bench.ask(rid)
        bench.accept()
    for _ in range(40):
        if any(request_id.startswith("r3#") for request_id in bench.engine.jobs):
            bench.engine.emit("", "failed", ENGINE_LOST)
        else:
            bench.engine.emit("hello", "finished", "stop")
        bench.settle()
    assert {rid: bench.head(rid).code for rid in rids} == {rid: "poison" if rid == "r3" else "stop" for rid in rids}
    assert bench.queue.length() == 0 and bench.loop.running == {}


def test_after_memory_ran_out_prompts_are_begun_again_one_at_a_time_and_the_large_one_is_found(bench: Bench) -> None:
    """Two newcomers and a reader's answer were computed again together, lost again together, and given up as poison."""
    engine = bench.use(TightEngine("r4"))
    rids = [f"r{number}" for number in range(7)]
    for rid in rids[:3]:
        bench.ask(rid)
        bench.accept()
    for _ in range(2):
        engine.step()
        bench.settle()
    for rid in rids[3:]:
        bench.ask(rid)
    for _ in range(3):
        bench.accept()
    for _ in range(60):
        engine.step()
        bench.settle()
        bench.take(bench.loop, WID)
    codes = {rid: bench.head(rid).code for rid in rids}
    assert codes == {rid: "out_of_memory" if rid == "r4" else "stop" for rid in rids}
    assert {bench.text(rid) for rid in rids if rid != "r4"} == {"hello"}


def test_an_answer_that_goes_on_is_to_blame_where_its_prompt_is_too_much_for_the_memory(bench: Bench) -> None:
    engine = bench.use(TightEngine("r1", answered=2))
    for rid in ("r0", "r1", "r2"):
        bench.ask(rid)
        bench.accept()
    engine.step()
    bench.settle()
    engine.step()
    bench.settle()
    engine.lose()
    for _ in range(30):
        bench.settle()
        engine.step()
    assert [bench.head(rid).code for rid in ("r0", "r1", "r2")] == ["stop", "out_of_memory", "stop"]


def test_an_engine_and_a_fence_lost_together_still_resubmit(bench: Bench) -> None:
    """The lost fence hid that the engine had lost the request too: it was renewed for ever and ran nowhere."""
    bench.ask("r1")
    bench.accept()
    bench.engine.emit("hel")
    bench.settle()
    bench.engine.emit("l")
    bench.engine.emit("", "failed", ENGINE_LOST)
    bench.redis.delete(bench.keys.state("r1"))  # the append is answered GONE
    bench.settle()
    bench.engine.emit("hello", "finished", "stop")
    bench.settle()
    assert bench.text("r1") == "hello" and bench.head("r1").status == "finished"


def test_an_entry_without_room_goes_to_whoever_has_some(bench: Bench) -> None:
    for rid in ("r1", "r2", "r3"):
        bench.ask(rid)
        bench.accept()
    assert set(bench.loop.running) == {"r1", "r2"} and bench.head("r3").begins == 0
    other = bench.new_loop("w2", 0.0)
    assert bench.take(other, "w2") and set(other.running) == {"r3"} and bench.head("r3").tries == 1


def crowded(bench: Bench, cache_tokens: int, *texts: str) -> list[str]:
    """Ask for echoes from an engine with a small cache; the names of what it computes. `hello` needs 6 + 5 tokens."""
    bench.engine.limits = replace(bench.engine.limits, cache_tokens=cache_tokens)
    bench.loop.slots = 8
    for number, text in enumerate(texts, 1):
        bench.ask(f"r{number}", text)
        bench.accept()
    return computed(bench)


def computed(bench: Bench) -> list[str]:
    return [name.partition("#")[0] for name in bench.engine.jobs]


def test_a_request_waits_until_the_cache_has_room_for_its_prompt_and_answer(bench: Bench) -> None:
    """An engine that had to make room threw away what it had computed, and computed it again."""
    assert crowded(bench, 30, "hello", "hello", "hello") == ["r1", "r2"]
    assert bench.head("r3").status == "running" and bench.loop.num_free == 0
    bench.engine.emit("hello", "finished", "stop")
    bench.settle()
    assert computed(bench) == ["r3"] and bench.loop.num_free > 0
    bench.engine.emit("hello", "finished", "stop")
    bench.settle()
    assert [bench.text(rid) for rid in ("r1", "r2", "r3")] == ["hello"] * 3
    assert bench.head("r3").begins == 1


def test_a_small_request_does_not_overtake_the_one_that_waits_for_room(bench: Bench) -> None:
    assert crowded(bench, 30, "hello", "hello, all of you", "a") == ["r1"]
    assert set(bench.loop.running) == {"r1", "r2"} and bench.head("r3").begins == 0, "another worker may take it"
    bench.engine.emit("hello", "finished", "stop")
    bench.settle()
    assert computed(bench) == ["r2"], "alone it always fits: the planner has checked its length"


def test_a_request_that_is_cancelled_while_it_waits_for_room_makes_way(bench: Bench) -> None:
    assert crowded(bench, 20, "hello", "hello") == ["r1"]
    bench.requests.cancel("r2", "ann")
    bench.loop.cancelled("r2")
    assert set(bench.loop.running) == {"r1"} and bench.loop.num_free > 0


def test_a_worker_that_ends_computes_nothing_new(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last flush ended an answer, and what had waited for its room was given to the engine."""
    assert crowded(bench, 20, "hello", "hello") == ["r1"]
    bench.engine.emit("hello", "finished", "stop")
    for event in bench.events:
        bench.loop.engine_event(event)
    submitted: list[str] = []
    monkeypatch.setattr(bench.engine, "submit", lambda request_id, *_: submitted.append(request_id))
    assert bench.loop.drain(0.0) == 1
    assert submitted == [] and bench.head("r1").status == "finished"
    assert bench.take(bench.new_loop("w2", 0.0), "w2"), "another worker goes on with it"


def test_an_answer_is_expected_to_stay_far_below_a_whole_context(bench: Bench) -> None:
    """Clients that name no limit allow an answer all that the context has left."""
    allowed = replace(plan(ChatRequest("r", "ann", "m", (Message("user", "hello"),))).sampling, max_new_tokens=100_000)
    bench.plan = lambda request: replace(plan(request), sampling=allowed)
    assert crowded(bench, 3 * 1030, "hello", "hello", "hello", "hello") == ["r1", "r2", "r3"]


def test_what_waits_for_room_goes_on_waiting_while_the_engine_is_dead(bench: Bench) -> None:
    assert crowded(bench, 20, "hello", "hello") == ["r1"]
    bench.engine.lives = False
    bench.engine.emit("", "failed", ENGINE_LOST)
    bench.settle()
    assert computed(bench) == []
    bench.engine.lives = True
    for _ in range(2):
        bench.settle()
        bench.engine.emit("hello", "finished", "stop")
    bench.settle()
    assert [bench.text(rid) for rid in ("r1", "r2")] == ["hello"] * 2 and bench.loop.running == {}


def test_a_dead_engine_gives_new_entries_away_and_lets_its_leases_run_out(bench: Bench) -> None:
    bench.ask("r1")
    bench.accept()
    bench.engine.lives = False
    bench.ask("r2")
    bench.accept()
    assert set(bench.loop.running) == {"r1"}
    bench.loop.keep(2.0)
    assert bench.loop.leases.renewed_at == 0.0


def test_text_that_cannot_be_made_ends_one_request(bench: Bench) -> None:
    bench.ask("r1")
    bench.accept()
    ((_, _, on_event),) = bench.engine.jobs.values()
    on_event(EngineEvent(next(iter(bench.engine.jobs)), (0x110000,)))  # no character
    bench.settle()
    assert (bench.head("r1").status, bench.head("r1").code) == ("failed", "internal")


def test_a_complete_journal_is_ended_without_the_engine(bench: Bench) -> None:
    """The first worker died between its last token and the end."""
    bench.ask("r1")
    bench.accept()
    bench.engine.emit("hello")
    bench.settle()
    bench.release()
    successor = bench.new_loop("w2", 0.0)
    bench.engine.jobs.clear()
    assert bench.take(successor, "w2")
    successor.flush(0.0)
    assert bench.engine.jobs == {} and bench.text("r1") == "hello"
    assert (bench.head("r1").status, bench.head("r1").code) == ("finished", "length")


def test_a_cancelled_request_leaves_the_engine_at_the_wake_up(bench: Bench) -> None:
    bench.ask("r1")
    bench.accept()
    bench.engine.emit("hel")
    bench.settle()
    assert bench.requests.cancel("r1", "ann") == "cancelled"
    bench.loop.cancelled("r1")
    assert bench.engine.jobs == {} and bench.loop.running == {} and not bench.queue.holds("r1")


def test_a_cancel_without_wake_up_is_found_at_the_next_token(bench: Bench) -> None:
    bench.ask("r1")
    bench.accept()
    bench.journal.cancel("r1", "ann")
    bench.engine.emit("hel")
    bench.settle()
    assert bench.engine.jobs == {} and not bench.queue.holds("r1") and bench.text("r1") == ""


def test_a_malformed_entry_is_a_dead_letter(bench: Bench) -> None:
    bench.journal.create(ChatRequest("r9", "ann", "m", ()))
    bench.redis.xadd(bench.keys.requests("m"), {"surprise": "1"})
    bench.redis.xadd(bench.keys.requests("m"), {"rid": "r9", "user": "ann", "payload": '{"v":99}', "base": "x"})
    assert bench.queue.rescue() == (2, "")
    bench.accept()
    bench.accept()
    assert bench.queue.dead_length() == 2 and bench.queue.length() == 0 and bench.loop.running == {}
    assert (bench.head("r9").status, bench.head("r9").code) == ("failed", "protocol")


def test_a_journal_of_another_version_ends_its_request_and_not_the_worker(bench: Bench) -> None:
    """Each worker that took it died, until the request was called poison."""
    bench.ask("r1")
    bench.accept()
    bench.redis.xadd(bench.keys.journal("r1"), {"k": "tokens", "e": '{"v":2}'}, id="1-9")
    bench.release()
    successor = bench.new_loop("w2", 0.0)
    assert bench.take(successor, "w2")
    assert successor.running == {} and bench.queue.length() == 0 and bench.queue.dead_length() == 1
    assert (bench.head("r1").status, bench.head("r1").code) == ("failed", "protocol")


def test_leases_are_taken_over_only_after_they_ran_out(bench: Bench) -> None:
    bench.ask("r1")
    bench.accept()
    other = bench.new_loop("w2", 0.0)
    bench.watch(other, 0.1, 2.9)
    assert not bench.take(other, "w2")
    bench.watch(other, 2.9, 3.2)
    assert bench.take(other, "w2") and set(other.running) == {"r1"}
    bench.loop.keep(3.2)
    assert bench.loop.running == {}, "the former owner learns it at its next renewal"


def test_nothing_is_taken_over_right_after_an_outage(bench: Bench) -> None:
    """All leases look expired then: their owners renew first."""
    bench.ask("r1")
    bench.accept()
    other = bench.new_loop("w2", 0.0)
    bench.watch(other, 0.1, 2.9)
    other.leases.disconnected(2.9)
    bench.watch(other, 3.0, 5.8)
    assert not bench.take(other, "w2")
    bench.watch(other, 5.9, 9.0)
    assert bench.take(other, "w2") and set(other.running) == {"r1"}


def test_an_idle_worker_notices_how_long_an_outage_lasts(bench: Bench, namespace: str) -> None:
    """Its grace ended while Redis was away, and it freed everything at its first look, before any owner renewed."""
    bench.queue = RequestQueue(connect(f"redis://127.0.0.1:{free_port()}/0", role="test"), Keys(namespace), "m")
    idle = bench.new_loop("w2", 0.0)
    idle.leases.disconnected(10.0)
    with pytest.raises(redis.ConnectionError):
        idle.keep(10.3)


def pretend_idle(bench: Bench, owner: str, idle_s: float) -> None:
    """The server says that an owner renewed nothing for so long."""
    (row,) = bench.queue.pending()
    assert row.owner == owner
    bench.redis.xclaim(
        bench.keys.requests("m"), "workers", owner, 0, [row.entry_id], idle=int(idle_s * 1000), justid=True
    )


def test_idle_time_that_jumps_is_no_death(bench: Bench) -> None:
    """After a pause of Redis, a step of its clock or a lost renewal all leases look expired, without any error."""
    bench.ask("r1")
    bench.accept()
    other = bench.new_loop("w2", 0.0)
    other.keep(0.1)
    pretend_idle(bench, WID, 3600)
    other.keep(0.3)
    assert bench.queue.waiting() == []
    bench.watch(other, 0.4, 1.0)
    bench.loop.keep(1.1)
    bench.watch(other, 1.2, 3.5)
    assert bench.queue.waiting() == [], "its owner renewed it at 1.1"
    pretend_idle(bench, WID, 3600)
    bench.watch(other, 3.6, 6.4)
    assert bench.queue.waiting() == []
    bench.watch(other, 6.5, 6.8)
    assert bench.queue.waiting() == ["r1"], "by its own clock it saw no renewal for a lease"


def test_who_looks_seldom_does_not_count_time(bench: Bench) -> None:
    """A worker that planned long questions did not see the renewals between two looks, and took from the living."""
    bench.ask("r1")
    bench.accept()
    other = bench.new_loop("w2", 0.0)
    for now in (1.5, 3.0, 4.5, 6.0):
        other.keep(now)
    assert bench.queue.waiting() == []
    bench.watch(other, 6.1, 9.2)
    assert bench.queue.waiting() == ["r1"]


def test_the_servers_clock_steps_back_and_a_dead_owner_is_found_all_the_same(bench: Bench) -> None:
    """A clock that stepped back shows no idle time until it has caught up; ours goes on."""
    bench.ask("r1")
    bench.accept()
    other = bench.new_loop("w2", 0.0)
    other.keep(0.1)
    pretend_idle(bench, WID, 0)
    bench.watch(other, 0.2, 3.1)
    assert bench.queue.waiting() == []
    bench.watch(other, 3.2, 3.4)
    assert bench.queue.waiting() == ["r1"]


def test_a_full_worker_frees_what_others_lost_and_a_retry_goes_first(bench: Bench) -> None:
    """Under load a handed-back request waited for ever: each free slot went to the queue's next one at once."""
    bench.ask("r1")
    bench.accept()
    for rid in ("r2", "r3", "r4"):
        bench.ask(rid)
    other = bench.new_loop("w2", 0.0)
    assert bench.take(other, "w2") and bench.take(other, "w2")
    other.keep(0.1)
    assert bench.queue.waiting() == ["r4"]
    bench.watch(other, 0.1, 3.2)
    assert set(other.running) == {"r2", "r3"} and bench.queue.waiting() == ["r1", "r4"]


def test_a_lease_renewed_after_it_was_seen_is_not_taken(bench: Bench) -> None:
    bench.ask("r1")
    bench.accept()
    (seen,) = bench.queue.pending()
    entry = bench.queue.look(seen)
    assert entry is not None
    assert not bench.queue.hand_back(entry, WID, RETRY_PLACE, idle_s=seen.idle_s + 1)
    assert bench.queue.hand_back(entry, WID, RETRY_PLACE, idle_s=seen.idle_s)


def test_a_lost_request_of_another_version_is_left_to_its_own_workers(bench: Bench) -> None:
    bench.ask("r1")
    bench.accept()
    bench.redis.xadd(bench.keys.requests("m"), {"rid": "r9", "user": "ann", "payload": "?", "base": "0", "v": "99"})
    (newer,) = [i for i, f in bench.redis.xrange(bench.keys.requests("m")) if f[b"rid"] == b"r9"]
    bench.redis.xclaim(bench.keys.requests("m"), "workers", "w9", 0, [newer], force=True)
    other = bench.new_loop("w2", 0.0)
    bench.watch(other, 0.1, 4.0)
    assert bench.queue.waiting() == ["r1"]


def test_a_hung_engine_loses_its_leases(bench: Bench) -> None:
    bench.ask("r1")
    bench.accept(now=100.0)
    bench.loop.keep(102.0)
    renewed = bench.loop.leases.renewed_at
    bench.loop.keep(111.0)
    assert bench.loop.leases.renewed_at == renewed == 102.0


def test_two_suspects_never_share_a_worker(bench: Bench) -> None:
    for rid in ("r1", "r2"):
        bench.ask(rid)
        bench.accept()
    other = bench.new_loop("w2", 0.0)
    bench.watch(other, 0.1, 4.0)
    assert bench.take(other, "w2") and other.has_suspect
    assert not bench.take(other, "w2"), "it waits for a worker without one"
    bench.engine.emit("he")
    while bench.events:
        other.engine_event(bench.events.pop(0))
    other.flush(4.0)
    other.flush(4.0)
    assert bench.take(other, "w2"), "the first has produced a token: it is no suspect any more"
    assert len(other.running) == 2


def test_suspects_that_wait_for_one_another_are_not_attempted_meanwhile(bench: Bench) -> None:
    """Each was begun to be handed back: after twenty times an innocent one was given up as poison."""
    for rid in ("r1", "r2"):
        bench.ask(rid)
        bench.accept()
    other = bench.new_loop("w2", 0.0)
    bench.watch(other, 0.1, 4.0)
    for _ in range(25):  # the taker asks before the first has been begun
        entry = bench.queue.take("w2", suspects=True)
        assert entry is not None
        other.accept(bench.assignment(entry, "w2"), 4.0)
    assert set(other.running) == {"r1"} and bench.head("r2").begins == 1
    third = bench.new_loop("w3", 0.0)
    assert bench.take(third, "w3") and set(third.running) == {"r2"} and bench.head("r2").status == "running"


def test_who_looked_away_for_a_lease_takes_nothing_from_a_living_owner(bench: Bench) -> None:
    """It had seen a short idle time, then again one after several renewals, and took them for one."""
    bench.ask("r1")
    bench.accept()
    held = bench.loop.running["r1"].held.entry
    other = bench.new_loop("w2", 0.0)
    other.keep(0.1)
    for _ in range(3):
        assert bench.queue.hold(held, WID, "renew")
    deadline = time.monotonic() + 5
    seen = other.leases.observations[(held.entry_id, WID, held.count)].row.idle_s
    while bench.queue.pending()[0].idle_s <= seen:
        assert time.monotonic() < deadline
    other.keep(3.5)
    assert bench.queue.waiting() == []


def test_a_suspect_taken_beside_another_is_handed_back(bench: Bench) -> None:
    """The taker may fetch the second before the first has been begun."""
    for rid in ("r1", "r2"):
        bench.ask(rid)
        bench.accept()
    other = bench.new_loop("w2", 0.0)
    bench.watch(other, 0.1, 4.0)
    for _ in range(2):
        entry = bench.queue.take("w2", suspects=True)
        assert entry is not None
        other.accept(bench.assignment(entry, "w2"), 4.0)
    assert len(other.running) == 1 and len(bench.queue.waiting()) == 1
    assert bench.queue.take("w3", suspects=False) is None and bench.queue.take("w3", suspects=True) is not None


def test_the_echo_text_of_the_synthetic_worker_keeps_the_transcripts_rules() -> None:
    text = EchoText()
    text.replay([97, 98])
    assert text.push(0x1D11E) == "𝄞"
    assert text.slice_from(1) == ((98, 0x1D11E), 1, "b𝄞") and text.slice_from(3) == ((), 3, "")


def formed_plan(request: ChatRequest) -> Plan:
    """The answer of a model whose template opens its reasoning, as an object of JSON."""
    decoder: Any = CodePoints()
    parser = AnswerParser(MarkedTokens(pair("<think>", "</think>"), decoder), "reasoning")
    return replace(plan(request), answer=Answer(decoder, parser=parser), grammar=json_object(), notation=EBNF)


def only_job(bench: Bench) -> tuple[str, Sampling]:
    ((prompt, sampling, _),) = bench.engine.jobs.values()
    return "".join(map(chr, prompt)), sampling


def test_a_grammar_begins_behind_the_reasoning_and_drops_what_the_engine_had_said_there(bench: Bench) -> None:
    bench.plan = formed_plan
    bench.ask("r1", "x" * 60)
    bench.accept()
    assert only_job(bench)[1].grammar == ""
    bench.engine.emit("hm</think>Sure! Here")
    bench.engine.emit(" it is")  # under way, before the loop could tell the engine
    bench.settle()
    prompt, sampling = only_job(bench)
    assert prompt.endswith("hm</think>") and sampling.max_new_tokens == 60 - len("hm</think>")
    assert sampling.grammar == written(json_object(), EBNF)
    bench.engine.emit('{"a":1}', "finished", "stop")
    bench.settle()
    assert bench.text("r1") == 'hm{"a":1}' and bench.head("r1").status == "finished"


def test_a_worker_that_takes_an_answer_over_obeys_the_rest_of_its_grammar(bench: Bench) -> None:
    bench.plan = formed_plan
    bench.ask("r1", "x" * 60)
    bench.accept()
    for text in ("hm</think>", '{"a":'):
        bench.engine.emit(text)
        bench.settle()
    bench.engine.jobs.clear()
    bench.release()
    assert bench.take(bench.new_loop("w2", 0.0), "w2")
    rest = json_object().after('{"a":')
    assert rest is not None and only_job(bench)[1].grammar == written(rest, EBNF)


TOOLS = [{"type": "function", "function": {"name": "weather", "description": "", "parameters": {"enum": [{}]}}}]
HERMES = call_format("hermes")


def calling_plan(request: ChatRequest) -> Plan:
    """The answer of a model whose calls obey a grammar once one begins."""
    decoder: Any = CodePoints()
    frame = HERMES.family.frames[0]
    calls = Calls(HERMES.parser(), frame=frame)
    grammar = frame.grammar(TOOLS, ("weather",), several=True)
    return replace(plan(request), answer=Answer(decoder, calls=calls), grammar=grammar, notation=EBNF)


def test_a_call_obeys_its_grammar_from_the_mark_on_that_begins_it(bench: Bench) -> None:
    bench.plan = calling_plan
    bench.ask("r1", "x" * 90)
    bench.accept()
    assert only_job(bench)[1].grammar == ""
    bench.engine.emit("I look. <tool_")
    bench.engine.emit('call>\n{"name": "wither"')
    bench.settle()
    prompt, sampling = only_job(bench)
    assert prompt.endswith("I look. <tool_call>") and "weather" in sampling.grammar
    bench.engine.emit('\n{"name": "weather", "arguments": {}}\n</tool_call>', "finished", "stop")
    bench.settle()
    assert bench.text("r1") == "I look.weather{}" and bench.head("r1").status == "finished"


def test_a_worker_that_takes_a_call_over_obeys_the_rest_of_its_grammar(bench: Bench) -> None:
    bench.plan = calling_plan
    bench.ask("r1", "x" * 90)
    bench.accept()
    for text in ("<tool_call>", '\n{"name": "wea'):
        bench.engine.emit(text)
        bench.settle()
    bench.engine.jobs.clear()
    bench.release()
    assert bench.take(bench.new_loop("w2", 0.0), "w2")
    grammar = HERMES.family.frames[0].grammar(TOOLS, ("weather",), several=True)
    rest = grammar.after('\n{"name": "wea')
    assert rest is not None and only_job(bench)[1].grammar == written(rest, EBNF)


def test_a_reasoning_that_fills_the_budget_leaves_no_room_for_a_form(bench: Bench) -> None:
    bench.plan = formed_plan
    bench.ask("r1", "x" * len("hm</think>"))
    bench.accept()
    bench.engine.emit("hm</think>")
    bench.settle()
    assert (bench.head("r1").status, bench.engine.jobs) == ("finished", {})
