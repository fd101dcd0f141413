"""One request followed through every process by a search for its id, in the log lines of real processes."""

import json
import socket
import subprocess
import sys
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from services.chat.requests import Requests
from services.places import ROOT
from services.wire.messages import ChatRequest, Message
from tests.end_to_end.system import Browser, System, running_system, wait_until

SECRET = "Wolpertinger"  # in every text that anybody writes or reads here
Line = dict[str, Any]


@dataclass
class Logged:
    """A system whose processes write JSON, and what they have written."""

    system: System
    url: str

    def lines(self, *processes: subprocess.Popen[bytes]) -> list[Line]:
        """All lines, or those of some processes, by time: of one process in order, of several only nearly so."""
        numbers = [self.system.processes.index(process) for process in processes]
        paths = [self.system.folder / f"process-{number}.log" for number in numbers]
        found = [
            json.loads(line)
            for path in paths or self.system.folder.glob("process-*.log")
            for line in path.read_text().splitlines()
        ]
        return sorted(found, key=lambda line: line["time"])

    def of(self, rid: str, message: str) -> list[Line]:
        return [line for line in self.lines() if line.get("rid") == rid and line["message"] == message]

    def until(self, rid: str, message: str) -> Line:
        """The one milestone of this name, once it is written."""
        found = wait_until(lambda: self.of(rid, message), f"{message!r} of {rid}")
        assert len(found) == 1, found
        return dict(found[0])


@pytest.fixture(scope="module")
def logged(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Logged]:
    """A web process and an echo worker."""
    with running_system(tmp_path_factory.mktemp("logs"), log_format="json", lease_s=1.5) as system:
        system.echo_worker("--rate", "20", "--chunk", "8")
        yield Logged(system, system.web())


@pytest.fixture
def browser(logged: Logged) -> Iterator[Browser]:
    made = Browser(logged.url)
    yield made
    made.close()


def new_rid() -> str:
    return uuid.uuid4().hex


def test_a_request_of_the_page_is_followed_from_its_submission_to_its_delivery(
    logged: Logged, browser: Browser
) -> None:
    rid, text = new_rid(), f"{SECRET} " * 4
    before = logged.lines()
    assert browser.ask(rid, text)["ok"]
    browser.wait_for_done(rid)
    finished, end = logged.until(rid, "finished"), logged.until(rid, "delivered")
    told = [line for line in logged.lines() if line not in before]
    assert all(line.get("rid") == rid for line in told), "in a quiet system every line is about the request"
    assert [line["message"] for line in told if line["process"] == "web"] == ["submitted", "delivered"]
    assert [line["message"] for line in told if line["process"] == "worker"] == ["taken", "began", "finished"]
    assert len({line["pid"] for line in told}) == 2
    begin, taken, began = (logged.until(rid, message) for message in ("submitted", "taken", "began"))
    assert begin["model"] == "echo" and begin["user"].startswith("anon-") and begin["sid"] == end["sid"]
    assert taken["epoch"] == 1 and 0 <= taken["waited_s"] < 10 and began["continued"] == 0
    assert finished["code"] == "stop" and finished["tokens"] == len(text) == end["chars"] == end["tokens"]
    assert 0 < finished["seconds"] <= end["seconds"] < 30 and finished["tokens_per_s"] > 0
    assert end["status"] == "finished"


def test_a_request_of_the_command_is_followed_in_its_worker_and_the_command_itself_logs_nothing(
    logged: Logged,
) -> None:
    before = {line.get("rid") for line in logged.lines()}
    answer = subprocess.run(
        [sys.executable, "-m", "services.command", "send", SECRET, "--model", "echo"],
        cwd=ROOT,
        env=logged.system.environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert (answer.stdout, answer.stderr) == (f"{SECRET}\n", "")
    worker = logged.system.processes[0]

    def new() -> list[Line]:
        return [line for line in logged.lines(worker) if line.get("rid") not in before]

    wait_until(lambda: [line for line in new() if line["message"] == "finished"], "its end in the log")
    assert [line["message"] for line in new()] == ["taken", "began", "finished"]
    assert len({line["rid"] for line in new()}) == 1


def test_a_request_that_outlives_its_worker_is_found_in_the_next_one(logged: Logged, browser: Browser) -> None:
    """The epoch tells the two workers apart, and the id is the same."""
    first, second = (logged.system.start("tests.stand_ins.synthetic_worker", "--model", "slow") for _ in range(2))
    for process in (first, second):
        logged.system.wait_for_worker(process)
    rid, text = new_rid(), f"{SECRET} " * 24
    assert browser.ask(rid, text, model="slow")["ok"]
    browser.wait_for_text(rid, 20)
    taken = logged.until(rid, "taken")
    if taken["pid"] == second.pid:
        first, second = second, first
    first.kill()
    assert browser.wait_for_done(rid)["status"] == "finished"
    logged.until(rid, "delivered")
    assert [(line["pid"], line["epoch"]) for line in logged.of(rid, "taken")] == [(first.pid, 1), (second.pid, 2)]
    assert [line["continued"] > 0 for line in logged.of(rid, "began")] == [False, True]
    assert any("lost its lease" in line["message"] for line in logged.lines() if line.get("rid") == rid)
    finished = logged.until(rid, "finished")
    assert finished["tokens"] == len(text)
    second.terminate()
    assert second.wait(20) == 0


def test_what_a_drained_worker_hands_back_is_told_with_its_id(logged: Logged, browser: Browser) -> None:
    worker = logged.system.start("tests.stand_ins.synthetic_worker", "--model", "drained")
    logged.system.wait_for_worker(worker)
    rid = new_rid()
    assert browser.ask(rid, f"{SECRET} " * 100, model="drained")["ok"]
    browser.wait_for_text(rid, 20)
    worker.terminate()
    assert worker.wait(20) == 0
    assert logged.until(rid, "handed back")["tokens"] >= 20
    assert browser.call("cancel", {"id": rid})["status"] == "cancelled"
    browser.wait_for_done(rid)
    assert logged.until(rid, "delivered")["status"] == "cancelled"


def test_a_cancelled_request_is_told_by_both_processes(logged: Logged, browser: Browser) -> None:
    rid = new_rid()
    assert browser.ask(rid, f"{SECRET} " * 200)["ok"]
    browser.wait_for_text(rid, 8)
    assert browser.call("cancel", {"id": rid})["status"] == "cancelled"
    browser.wait_for_done(rid)
    assert logged.until(rid, "cancelled")["process"] == "web"
    assert logged.until(rid, "had ended")["status"] == "cancelled"
    assert logged.until(rid, "delivered")["status"] == "cancelled"


def test_a_refusal_is_told_with_its_code(logged: Logged, browser: Browser) -> None:
    rid = new_rid()
    assert not browser.ask(rid, SECRET, model="unheard-of")["ok"]
    refused = logged.until(rid, "refused")
    assert (refused["event"], refused["code"]) == ("submit", "unknown_model")
    other = Browser(logged.url)
    rid = new_rid()
    assert browser.ask(rid, SECRET)["ok"]
    assert other.call("cancel", {"id": rid})["error"]["code"] == "forbidden"
    other.close()
    refused = logged.until(rid, "refused")
    assert (refused["event"], refused["code"]) == ("cancel", "forbidden")
    browser.wait_for_done(rid)


def test_a_request_given_up_is_told_with_its_code(logged: Logged) -> None:
    """What its payload says is told to nobody."""
    rid = new_rid()
    requests = Requests(logged.system.redis, logged.system.keys)
    request = ChatRequest(rid, "u", "echo", (Message("user", SECRET),))
    requests.journal.create(request)
    requests.queue("echo").enqueue(rid, "u", f'{{"v":1,"messages":"{SECRET}"'.encode())
    given_up = wait_until(
        lambda: [line for line in logged.lines() if line.get("rid") == rid and "given up" in line["message"]], "its end"
    )
    assert given_up[0]["code"] == "protocol"


def test_no_line_holds_what_people_write_or_read(logged: Logged, browser: Browser) -> None:
    """A length that is too short made the rest of a message the next request's first line, which was logged."""
    port = int(logged.url.rpartition(":")[2])
    body = f'{{"text": "{SECRET}"}}\r\n\r\n'.encode()
    with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
        client.sendall(b"POST /api/session HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n" + body)
        while client.recv(65_536):
            pass
    browser.client.eio.send(f'2["submit",{{"id":"x","messages":"{SECRET}')
    wait_until(lambda: "ends its socket" in str(logged.lines()), "the broken packet's line")
    wait_until(lambda: "refused a request of" in str(logged.lines()), "the broken request's line")
    asked = [line for line in logged.lines() if line["message"] == "submitted"]
    assert len(asked) >= 3, "the tests before this one have asked"
    assert SECRET not in json.dumps(logged.lines())
