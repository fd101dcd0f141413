"""Older and present processes side by side, as in an upgrade without a pause: each reads what the other writes.

What the older build wrote is in its append-only file, byte by byte.
"""

import base64
import contextlib
import json
import time
from collections.abc import Iterator
from typing import Any

import pytest
import requests

from tests.end_to_end.system import Browser, System, wait_until
from tests.upgrades.conftest import Command
from tests.upgrades.old_build import OldBuild

REQUESTS = "chatserver:{echo}:requests"
JOURNAL = "chatserver:{%s}:journal"
STATE = "chatserver:{%s}:state"


@pytest.fixture(scope="module")
def url(system: System) -> str:
    return system.web()


@pytest.fixture(scope="module")
def browser(url: str, old: OldBuild) -> Iterator[Browser]:
    made = Browser(url, old.cookie())
    yield made
    made.close()


def pairs(words: list[bytes]) -> dict[bytes, bytes]:
    return dict(zip(words[::2], words[1::2], strict=True))


def fields(old: OldBuild, key: str) -> dict[bytes, bytes]:
    """A hash as the older build wrote it, whatever was deleted of it later."""
    written: dict[bytes, bytes] = {}
    for name in (b"HSET", b"HSETNX"):
        for words in old.told(name, key):
            written.update(pairs(list(words[2:])))
    return written


def presence(old: OldBuild, model: bytes) -> dict[bytes, bytes]:
    """What a worker of the older build says of itself."""
    keys = {words[1].decode() for words in old.commands if words[1:] and words[1].startswith(b"chatserver:worker:")}
    return next(found for found in (fields(old, key) for key in keys) if found.get(b"model") == model)


def submitted(old: OldBuild, browser: Browser, rid: str, like: str) -> None:
    """The question of the older build once more, under another id."""
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": old.question(like)}]
    sampling = {"max_new_tokens": 1000, "temperature": 0.5, "top_p": 0.9, "seed": 7, "stop": ["###"]}
    answer = browser.call("submit", {"id": rid, "model": "echo", "messages": messages, "sampling": sampling})
    assert answer["ok"], answer


def test_a_worker_of_the_older_build_is_shown_as_one_that_serves(system: System, url: str, old: OldBuild) -> None:
    found = {**presence(old, b"echo"), b"seen": str(time.time()).encode()}
    key = f"chatserver:worker:{{{found[b'wid'].decode()}}}"
    system.redis.hset(key, mapping=found)
    system.redis.expire(key, 5)
    system.redis.zadd("chatserver:workers", {found[b"wid"]: time.time()})
    (model,) = [row for row in requests.get(f"{url}/api/models", timeout=10).json()["models"] if row["name"] == "echo"]
    assert (model["state"], model["workers"], model["slots"], model["context_tokens"]) == ("served", 1, 1, 1_000_000)
    system.redis.delete(key)


def test_the_page_shows_live_what_a_worker_of_the_older_build_says(
    system: System, browser: Browser, old: OldBuild
) -> None:
    """Its commands once more, each event published after it is written, as its scripts did."""
    rid = "old-finished"
    told = [words for words in old.commands if words[1:] and words[1].startswith(b"chatserver:{%b}:" % rid.encode())]
    system.redis.delete(STATE % rid, JOURNAL % rid)
    system.redis.execute_command(*told.pop(0))
    assert browser.call("watch", {"id": rid, "offset": 0, "nonce": ""})["ok"]
    for words in told:
        system.redis.execute_command(*words)
        if words[0] == b"XADD":
            system.redis.spublish(f"chatserver:{{{rid}}}:events", words[-1])
    assert browser.wait_for_done(rid)["code"] == "stop"
    assert (browser.text[rid], browser.problems) == (old.question(rid), [])


def test_a_worker_of_the_older_build_can_read_a_question_of_the_present_one(
    system: System, browser: Browser, old: OldBuild
) -> None:
    """It refuses fields that it does not know in a payload, and takes its own defaults where an option is left out.

    Of the entry around the payload it reads the fields that it wrote.
    """
    submitted(old, browser, "new-queued", "old-queued")
    (words,) = [words for words in old.told(b"XADD", REQUESTS) if words[4] == b"old-queued"]
    before = {name: value.replace(b"old-", b"new-") for name, value in pairs(list(words[3:])).items()}
    after = next(entry for _, entry in system.redis.xrevrange(REQUESTS) if entry[b"rid"] == b"new-queued")
    assert as_the_older_build_reads({name: after[name] for name in before}) == as_the_older_build_reads(before)


@pytest.mark.parametrize(
    "more", [{"continue_final": True, "messages": [{"role": "assistant", "content": "It is"}]}, {"prompt": "It is"}]
)
def test_an_older_worker_refuses_a_question_that_it_would_misread(
    system: System, browser: Browser, more: dict[str, Any]
) -> None:
    """It compares the payload's version with 1, and would answer the messages alone."""
    rid = f"new-{next(iter(more))}"
    assert browser.call("submit", {"id": rid, "model": "echo", **more})["ok"]
    (entry,) = [entry for _, entry in system.redis.xrange(REQUESTS) if entry[b"rid"] == rid.encode()]
    assert json.loads(entry[b"payload"])["v"] != 1
    assert entry[b"v"] == b"1", "workers of the present build take it"
    browser.call("cancel", {"id": rid})


def as_the_older_build_reads(entry: dict[bytes, bytes]) -> dict[bytes, Any]:
    payload = json.loads(entry[b"payload"])
    options = {"max_new_tokens": 512, "temperature": 0.7, "top_p": 1.0, "top_k": 0, "repetition_penalty": 1.0}
    return {**entry, b"payload": {**payload, "sampling": {**options, "seed": None, **payload["sampling"]}}}


def test_the_present_build_wakes_the_workers_of_the_older_one(system: System, browser: Browser, old: OldBuild) -> None:
    with contextlib.closing(system.redis.pubsub()) as control:
        control.subscribe("chatserver:control")
        submitted(old, browser, "new-cancelled", "old-cancelled")
        system.redis.xgroup_createconsumer(REQUESTS, "workers", "somebody")
        browser.call("cancel", {"id": "new-cancelled"})
        heard = set()

        def woken() -> bool:
            message = control.get_message(timeout=0.05)
            if message and message["type"] == "message":
                heard.add(message["data"].decode().replace("new-", "old-"))
            return "queued echo" in heard

        wait_until(woken, "the wake-up")
    assert heard <= set(old.about["control"])


def test_a_reader_of_the_older_build_finds_every_field_that_it_knows(
    system: System, browser: Browser, old: OldBuild
) -> None:
    submitted(old, browser, "new-finished", "old-finished")
    worker = system.echo_worker("--rate", "20", "--chunk", "4")
    browser.wait_for_done("new-finished")
    before = events([(words[4], words[6]) for words in old.told(b"XADD", JOURNAL % "old-finished")])
    entries = system.redis.xrange(JOURNAL % "new-finished")
    assert before == events([(entry[b"k"], entry[b"e"]) for _, entry in entries])
    assert set(fields(old, STATE % "old-finished")) - {b"payload"} <= set(system.redis.hgetall(STATE % "new-finished"))
    (wid,) = [worker_.wid for worker_ in system.registry.workers() if worker_.pid == worker.pid]
    assert set(presence(old, b"echo")) <= set(system.redis.hgetall(f"chatserver:worker:{{{wid}}}"))


def test_readers_and_pages_of_the_older_build_read_reasoning_and_answer_as_one_text(
    system: System, browser: Browser, old: OldBuild
) -> None:
    """They know no parts: offsets go through both, and every field that they know is there."""
    system.echo_worker("--model", "thinker", "--reasoning", "--rate", "20")
    browser.ask("new-thought", "<think>\n2 and 2\n</think>\n\n4", model="thinker")
    assert browser.wait_for_done("new-thought")["offset"] == len("2 and 24")
    assert (browser.text["new-thought"], browser.problems) == ("2 and 24", [])
    entries = system.redis.xrange(JOURNAL % "new-thought")
    text = ""
    for _, entry in entries:
        event = json.loads(entry[b"e"])
        text = text[: event["toff"]] + event.get("text", "")
    assert text == "2 and 24"
    before = events([(words[4], words[6]) for words in old.told(b"XADD", JOURNAL % "old-finished")])
    after = events([(entry[b"k"], entry[b"e"]) for _, entry in entries])
    for kind, shape in before.items():
        assert {name: after[kind][name] for name in shape} == {**shape, "usage": after[kind]["usage"]}
        assert set(shape["usage"]) <= set(after[kind]["usage"])


def events(entries: list[tuple[bytes, bytes]]) -> dict[str, dict[str, Any]]:
    """Kind → field → type, with the parts of `usage`."""
    shapes: dict[str, dict[str, Any]] = {}
    for kind, raw in entries:
        event = json.loads(raw)
        assert event["kind"] == kind.decode() and event["v"] == 1
        shape = {name: type(value).__name__ for name, value in event.items() if name != "usage"}
        shapes[kind.decode()] = {**shape, "usage": sorted(event.get("usage", ()))}
    return shapes


def test_the_pipelines_of_the_older_build_understand_the_task_messages_of_the_present_one(
    system: System, old: OldBuild, chatserver: Command
) -> None:
    """A submitted job sends one; nobody runs the pipelines here, so it stays in its queue."""
    (old.folder / "again.yaml").write_text((old.folder / "shards.yaml").read_text())
    words = ["--in", old.folder / "words.json", "--out", old.folder / "again"]
    said = chatserver("clean", "submit", old.folder / "again.yaml", *words)
    jid = said.split("submitted as ")[1].partition(";")[0]
    after = json.loads(system.redis.lindex("chatserver.celery.sweeps", 0))
    of_half = [each for each in old.messages("sweeps") if arguments(each) == [old.job("half")]]
    assert arguments(after) == [jid]
    assert after["headers"]["task"] == of_half[0]["headers"]["task"]
    assert after["content-type"] == of_half[0]["content-type"]


def arguments(message: dict[str, Any]) -> Any:
    return json.loads(base64.b64decode(message["body"]))[0]
