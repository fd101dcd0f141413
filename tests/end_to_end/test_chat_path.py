"""The whole path over real processes: socket → queue → worker → journal → relay → socket."""

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

import pytest

from services.chat.journal import Head, Journal
from services.places import ROOT
from services.serving.registry import WorkerInfo
from tests.end_to_end.system import Browser, System, session_cookie, wait_until

LONG = "The quick brown fox 𝄞 jumps over the lazy dog. " * 12


@pytest.fixture
def browser(chat_url: str):
    made = Browser(chat_url)
    yield made
    made.close()


def fresh() -> str:
    return uuid.uuid4().hex


def head_of(system: System, rid: str) -> Head:
    head = Journal(system.redis, system.keys).head(rid)
    assert head is not None
    return head


def ask_and_find_owner(system: System, browser: Browser) -> tuple[str, WorkerInfo]:
    """A request in the middle of its answer, and the worker that owns it."""
    rid = fresh()
    browser.ask(rid, LONG)
    browser.wait_for_text(rid, 40)
    wid = head_of(system, rid).wid
    return rid, next(worker for worker in system.registry.workers() if worker.wid == wid)


def journal_text(system: System, rid: str) -> str:
    read = Journal(system.redis, system.keys).read(rid)
    assert read is not None
    return "".join(event.text for event in read[1])


@pytest.mark.parametrize("transport", ["websocket", "polling"])
def test_an_answer_streams_in_order_and_ends_once(chat_url: str, transport: str) -> None:
    browser = Browser(chat_url, transport=transport)
    rid = fresh()
    assert browser.ask(rid, LONG) == {"ok": True, "id": rid}
    done = browser.wait_for_done(rid)
    assert browser.client.transport() == transport
    browser.close()
    assert browser.text[rid] == LONG[:512]
    assert (done["status"], done["code"]) == ("finished", "length")
    assert done["usage"]["completion_tokens"] == 512
    assert 0 < done["usage"]["first_token_ms"] <= done["usage"]["total_ms"]
    assert browser.problems == [] and len(browser.done[rid]) == 1


def test_a_reload_mid_answer_resumes_at_the_cursor(system: System, chat_url: str) -> None:
    cookie, rid = session_cookie(chat_url), fresh()
    before = Browser(chat_url, cookie)
    before.ask(rid, LONG)
    shown = before.wait_for_text(rid, 40)
    before.close()
    shown = before.text[rid]
    after = Browser(chat_url, cookie)
    after.text[rid] = shown  # what the page kept
    assert after.call("watch", {"id": rid, "offset": len(shown), "nonce": before.nonce[rid]}) == {"ok": True}
    after.wait_for_done(rid)
    after.close()
    assert after.text[rid] == journal_text(system, rid) == LONG[:512]
    assert after.problems == []


def test_a_second_tab_on_another_web_process_sees_the_same_answer(system: System, chat_url: str) -> None:
    cookie, rid = session_cookie(chat_url), fresh()
    first = Browser(chat_url, cookie)
    first.ask(rid, LONG)
    first.wait_for_text(rid, 20)
    second = Browser(system.web(), cookie)
    assert second.call("watch", {"id": rid, "offset": 0, "nonce": ""}) == {"ok": True}
    assert first.wait_for_done(rid) == second.wait_for_done(rid)
    assert first.text[rid] == second.text[rid] == LONG[:512]
    assert first.problems == second.problems == []
    first.close()
    second.close()


def test_the_same_id_submitted_twice_runs_once(system: System, browser: Browser) -> None:
    rid = fresh()
    browser.ask(rid, LONG)
    browser.wait_for_text(rid, 20)
    shown = len(browser.text[rid])
    assert browser.ask(rid, LONG)["ok"]
    assert browser.text[rid][:shown] == LONG[:shown]
    head = head_of(system, rid)
    assert head.begins == 1


def test_stop_ends_the_answer_and_leaves_no_generation(system: System, browser: Browser) -> None:
    rid = fresh()
    browser.ask(rid, LONG)
    browser.wait_for_text(rid, 20)
    assert browser.call("cancel", {"id": rid}) == {"ok": True, "status": "cancelled"}
    assert browser.wait_for_done(rid)["status"] == "cancelled"
    wait_until(lambda: all(worker.running == 0 for worker in system.registry.workers()), "the engine's stop")
    head = head_of(system, rid)
    assert head.toff == len(browser.text[rid]) < 512
    assert browser.problems == []


def test_another_user_can_neither_watch_nor_cancel(chat_url: str, browser: Browser) -> None:
    rid = fresh()
    browser.ask(rid, LONG)
    stranger = Browser(chat_url)
    assert stranger.call("watch", {"id": rid, "offset": 0, "nonce": ""})["error"]["code"] == "forbidden"
    assert stranger.call("cancel", {"id": rid})["error"]["code"] == "forbidden"
    assert stranger.ask(rid, "mine now")["error"]["code"] == "conflict"
    stranger.close()
    assert stranger.text == {}


def test_an_unknown_model_is_refused_with_the_served_names(browser: Browser) -> None:
    error = browser.ask(fresh(), "hi", model="nope")["error"]
    assert error["code"] == "unknown_model" and "echo" in error["message"]


@pytest.mark.parametrize(
    "payload",
    [None, 1, [], {}, {"id": "x" * 200}, {"id": {"a": 1}}, {"id": "a", "model": "echo", "messages": [{"role": "x"}]}],
)
def test_bad_messages_are_answered_and_harm_nothing(browser: Browser, payload: object) -> None:
    for event in ("submit", "watch", "cancel", "received", "unwatch"):
        answer = browser.call(event, payload)
        assert answer == {"ok": True} or answer["error"]["code"] in ("invalid_request", "gone"), (event, answer)
    assert browser.client.connected


def test_a_killed_worker_is_replaced_mid_answer(system: System, browser: Browser) -> None:
    """The reader sees a pause, then the rest: no gap, no repeat, no rewind."""
    system.echo_worker("--rate", "20", "--chunk", "4")
    rid, owner = ask_and_find_owner(system, browser)
    os.kill(owner.pid, signal.SIGKILL)
    browser.wait_for_done(rid)
    assert browser.text[rid] == journal_text(system, rid) == LONG[:512]
    assert browser.problems == []
    head = head_of(system, rid)
    assert head.begins == 2


def test_a_stopped_worker_that_wakes_up_writes_nothing_that_a_reader_sees(system: System, browser: Browser) -> None:
    system.echo_worker("--rate", "20", "--chunk", "4")
    rid, zombie = ask_and_find_owner(system, browser)
    os.kill(zombie.pid, signal.SIGSTOP)
    wait_until(lambda: head_of(system, rid).begins == 2, "the takeover")
    os.kill(zombie.pid, signal.SIGCONT)
    browser.wait_for_done(rid)
    woken = time.time()
    wait_until(
        lambda: any(w.wid == zombie.wid and w.seen > woken for w in system.registry.workers()), "the zombie's waking"
    )
    assert browser.text[rid] == journal_text(system, rid) == LONG[:512]
    assert browser.problems == [] and len(browser.done[rid]) == 1


def test_a_drained_worker_hands_over_at_once(system: System, browser: Browser) -> None:
    system.echo_worker("--rate", "20", "--chunk", "4")
    rid, owner = ask_and_find_owner(system, browser)
    os.kill(owner.pid, signal.SIGTERM)
    browser.wait_for_done(rid)
    head = head_of(system, rid)
    assert (head.begins, head.tries) == (2, 1)
    assert browser.text[rid] == LONG[:512] and browser.problems == []


def test_a_slow_client_is_paused_and_loses_nothing(system: System, chat_url: str) -> None:
    """A client that acknowledges nothing gets one window; its first acknowledgement continues from there."""
    fast = system.echo_worker("--model", "fast", "--rate", "50", "--chunk", "2000")
    browser = Browser(chat_url)
    browser.client.on("tokens", lambda event: texts.append(event))
    texts: list[dict] = []
    rid, text = fresh(), "0123456789" * 4000
    browser.ask(rid, text, model="fast", max_new_tokens=40_000)
    wait_until(lambda: sum(len(e["text"]) for e in texts) == 16_384, "the first window")
    wait_until(lambda: head_of(system, rid).ended, "the end in the journal")
    assert sum(len(event["text"]) for event in texts) == 16_384
    while sum(len(event["text"]) for event in texts) < len(text):
        before = len(texts)
        browser.client.emit("received", {"id": rid, "offset": sum(len(event["text"]) for event in texts)})
        wait_until(lambda before=before: len(texts) > before, "the next window")
    wait_until(lambda: rid in browser.done, "the end")
    assert "".join(event["text"] for event in texts) == text
    browser.close()
    fast.terminate()


def cli(system: System, *arguments: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).parent / "chatserver"), *arguments]
    return subprocess.run(
        command, env=system.environment, cwd=ROOT, input=stdin, capture_output=True, text=True, timeout=60, check=False
    )


def test_the_health_probes_tell_a_serving_process_from_a_missing_one(system: System, chat_url: str) -> None:
    port = chat_url.rsplit(":", 1)[1]
    assert cli(system, "worker", "--check").returncode == 0
    assert cli(system, "web", "--check", "--port", port).returncode == 0
    refused = cli(system, "web", "--check", "--port", "1")
    assert refused.returncode == 1 and ":1/readyz" in refused.stderr
    system.environment["CHATSERVER_NAMESPACE"] += "-other"
    try:
        assert "no worker" in cli(system, "worker", "--check").stderr
    finally:
        system.environment["CHATSERVER_NAMESPACE"] = system.environment["CHATSERVER_NAMESPACE"].removesuffix("-other")


@pytest.mark.parametrize("program", ["worker", "web"])
def test_a_program_that_cannot_start_says_why_in_one_line(system: System, chat_url: str, program: str) -> None:
    taken = cli(system, "web", "--port", chat_url.rsplit(":", 1)[1])
    assert (taken.returncode, taken.stderr.count("\n")) == (1, 1) and "in use" in taken.stderr
    probe = cli(system, program, "--check", "--redis-url", "redis://127.0.0.1:1/0")
    assert (probe.returncode, probe.stderr.count("\n")) == (1, 1), probe.stderr


def test_the_command_line_needs_no_web_process(system: System) -> None:
    assert cli(system, "send", "What is the capital of France?", "--model", "echo").stdout.strip() == (
        "What is the capital of France?"
    )
    piped = cli(system, "chat", "--model", "echo", stdin="Name three colours.")
    assert (piped.returncode, piped.stdout.strip()) == (0, "Name three colours.")
    status = json.loads(cli(system, "status", "--json").stdout)
    assert "echo" in {worker["model"] for worker in status["workers"]}
    refused = cli(system, "send", "hi", "--model", "nope")
    assert refused.returncode == 1 and "unknown_model" in refused.stderr
