"""Background responses whose workers and web processes are killed: the reader gets exactly the rest, and one end."""

import json
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
import requests

from services.chat.journal import Journal
from services.wire.messages import ChatRequest, Event, EventKind
from tests.end_to_end.system import System, running_system, wait_until
from tests.webapp.api.client import open_request, post
from tests.webapp.api.responses_client import PATH, ask, cancel, events, read

THOUGHT, SAID = "One 𝄞 thing after the other. " * 6 + "Yes.", "It is four, and no other number. " * 6 + "Yes."
ASKED = f"<think>{THOUGHT}</think>{SAID}"
WORKER = ("tests.stand_ins.synthetic_worker", "--model", "m", "--reasoning", "--rate", "20", "--chunk", "4")


@pytest.fixture
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    with running_system(tmp_path_factory.mktemp("takeover"), lease_s=1.5) as system:
        yield system


class Reader:
    """The events of a stream, one at a time, until it breaks or ends."""

    def __init__(self, response: requests.Response) -> None:
        assert response.status_code == 200, response.text
        self.frames: list[Any] = []
        self.lines = response.iter_lines(chunk_size=1)

    def read_until(self, kind: str, number: int = 0) -> None:
        """Until the first event of a kind with at least this number."""
        for line in self.lines:
            if line.startswith(b"data: {"):
                self.frames.append(json.loads(line.removeprefix(b"data: ")))
                last = self.frames[-1]
                if last["type"] == f"response.{kind}" and last["sequence_number"] >= number:
                    return
        raise AssertionError(f"the stream ended before {kind} {number}")


def start(url: str) -> tuple[str, Reader]:
    body = ask(ASKED, "m", background=True, stream=True)
    reader = Reader(requests.post(url + PATH, json=body, stream=True, timeout=30))
    reader.read_until("created")
    return reader.frames[0]["response"]["id"], reader


def kill_owner(system: System, rid: str) -> None:
    head = Journal(system.redis, system.keys).head(rid)
    assert head is not None
    pid = next(worker.pid for worker in system.registry.workers() if worker.wid == head.wid)
    kill(next(process for process in system.processes if process.pid == pid))


def kill(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()


@pytest.mark.parametrize("part", ["reasoning_text", "output_text"])
def test_another_process_goes_on_after_worker_and_web_process_were_killed(system: System, part: str) -> None:
    workers = [system.start(*WORKER) for _ in range(2)]
    for worker in workers:
        system.wait_for_worker(worker)
    first_url = system.web()
    first_web = system.processes[-1]
    rid, reader = start(first_url)
    reader.read_until(f"{part}.delta", 20 if part == "reasoning_text" else len(THOUGHT) + 40)
    kill_owner(system, rid)
    kill(first_web)
    second_url = system.web(relay_interval_s=0.2)
    rest = events(second_url, rid, reader.frames[-1]["sequence_number"])
    whole = events(second_url, rid)
    assert read([*reader.frames, *rest]) == read(whole)
    assert list(read(whole)[1].values()) == [THOUGHT, SAID]
    ends = [frame["type"] for frame in [*reader.frames, *rest] if frame["type"] == "response.completed"]
    assert ends == ["response.completed"]
    assert whole[-1]["response"]["output"][1]["content"][0]["text"] == SAID


def test_a_response_that_redis_lost_is_submitted_again_with_all_that_is_kept_of_it(system: System) -> None:
    """Nobody reads it. The process that accepted it knows the request and its note."""
    url = system.web()
    system.redis.sadd(system.keys.models, "m")
    ordered = post(url, PATH, ask(ASKED, "m", background=True, metadata={"a": "b"})).json()
    rid = ordered["id"]
    lost = [system.keys.state(rid), system.keys.journal(rid), *system.redis.scan_iter("*{m}*")]
    wait_until(lambda: followed(system, rid), "the custodian")
    system.redis.delete(*lost)
    wait_until(lambda: system.redis.exists(system.keys.state(rid)), "the second submit", 30)
    assert requests.get(f"{url}{PATH}/{rid}", timeout=30).json() == ordered
    system.wait_for_worker(system.start(*WORKER))
    assert events(url, rid)[-1]["response"]["metadata"] == {"a": "b"}


def followed(system: System, rid: str) -> bool:
    """Whether some process hears the answer's live events."""
    channels: dict[bytes, int] = dict(system.redis.pubsub_shardnumsub(system.keys.events(rid)))
    return any(channels.values())


def test_a_process_that_is_asked_for_it_looks_after_a_response_that_its_queue_lost(system: System) -> None:
    """The process that accepted it was killed, and the queue lost its entry."""
    first_url = system.web()
    first_web = system.processes[-1]
    system.redis.sadd(system.keys.models, "m")
    rid = post(first_url, PATH, ask("hello", "m", background=True)).json()["id"]
    kill(first_web)
    system.redis.delete(*system.redis.scan_iter("*{m}*"))
    url = system.web()
    assert requests.get(f"{url}{PATH}/{rid}", timeout=30).json()["status"] == "queued"
    wait_until(lambda: system.redis.hexists(system.keys.ids("m"), rid), "the second queueing", 30)
    assert cancel(url, rid).json()["status"] == "cancelled"
    wait_until(lambda: not followed(system, rid), "the end of the watch")


class Worker:
    """A worker that writes what a test says."""

    def __init__(self, system: System, rid: str) -> None:
        self.redis, self.rid = system.redis, rid
        self.journal = Journal(system.redis, system.keys)
        self.journal.load_append()
        head = self.journal.head(rid)
        assert head is not None
        self.request, self.payload = ChatRequest.decode(head.payload), head.payload

    def write(self, epoch: int, text: str) -> None:
        """Become the owner, and write the whole text."""
        rules = {"max_tries": 9, "max_begins": 9, "deadline_ms": 60_000}
        nonce = f"n{epoch}"
        self.journal.begin(self.request, self.payload, epoch=epoch, nonce=nonce, wid="w", **rules)
        event = Event("tokens", nonce, 0, 0, tuple(map(ord, text)), text)
        reply = self.redis.execute_command(*self.journal.append_command(self.rid, epoch, event))
        assert self.journal.appended(reply) == len(text)

    def end(self, epoch: int, kind: EventKind, length: int, code: str) -> None:
        event = Event(kind, f"n{epoch}", length, length, code=code, usage={"prompt_tokens": 1})
        assert self.journal.finish(self.rid, epoch, event) is None


def test_text_that_redis_lost_is_taken_back_with_the_number_to_ask_after(system: System) -> None:
    url = system.web()
    system.redis.sadd(system.keys.models, "m")
    rid, reader = start(url)
    worker = Worker(system, rid)
    worker.write(1, "abcdef")
    reader.read_until("output_text.delta", 10)
    system.redis.delete(system.keys.journal(rid))
    system.redis.hset(system.keys.state(rid), mapping={"n": 0, "toff": 0})
    worker.write(2, "abXY")
    rest = [json.loads(line[6:]) for line in reader.lines if line.startswith(b"data: ")]
    assert [(frame["type"], frame["sequence_number"], frame["code"]) for frame in rest] == [("error", 6, "interrupted")]
    worker.end(2, "finished", 4, "stop")
    last = events(url, rid, 6)
    assert [frame["delta"] for frame in last if frame["type"].endswith("delta")] == ["XY"]
    assert last[-1]["response"]["output"][0]["content"][0]["text"] == "abXY"


def test_an_answer_that_fails_ends_as_a_failed_response(system: System) -> None:
    url = system.web()
    system.redis.sadd(system.keys.models, "m")
    for code, shown in (("prompt_too_long", "invalid_prompt"), ("engine_error", "server_error")):
        rid, reader = start(url)
        worker = Worker(system, rid)
        worker.write(1, "abc")
        reader.read_until("output_text.delta")
        worker.end(1, "failed", 3, code)
        reader.read_until("failed")
        failed = reader.frames[-1]["response"]
        assert (failed["status"], failed["error"]["code"]) == ("failed", shown)
        assert failed["output"][0]["status"] == "incomplete" and failed["usage"]["input_tokens"] == 1
        assert requests.get(f"{url}{PATH}/{rid}", timeout=30).json() == failed


@pytest.mark.parametrize("streamed", [True, False])
def test_what_a_worker_refuses_at_once_has_its_status_in_the_foreground(system: System, streamed: bool) -> None:
    url = system.web()
    system.redis.sadd(system.keys.models, "m")
    with open_request(url, PATH, ask("x", "m", stream=streamed)) as connection:
        state = wait_until(lambda: next(system.redis.scan_iter("*{resp_*}:state"), None), "the request")
        rid = state.decode().split("{")[1].split("}")[0]
        Journal(system.redis, system.keys).give_up(rid, "api", "prompt_too_long", "too long")
        answer = b""
        while b"}}" not in answer:
            answer += connection.recv(65_536) or b"}} and the connection ended"
    assert answer.startswith(b"HTTP/1.1 400 ") and b'"context_length_exceeded"' in answer
