"""Questions that the older build was asked: whole, ended, in the middle and not begun."""

import json

import pytest

from tests.end_to_end.system import Browser, System, wait_until
from tests.upgrades.conftest import Command
from tests.upgrades.old_build import OldBuild

QUEUED = {"old-queued": "asker", "old-queued-batch": "asker", "old-queued-other": "other"}


@pytest.fixture(scope="module")
def url(system: System) -> str:
    return system.web()


def watched(url: str, old: OldBuild, rid: str, user: str = "asker") -> Browser:
    """A page of the user that asked, which has nothing of the answer yet."""
    browser = Browser(url, old.cookie(user))
    assert browser.call("watch", {"id": rid, "offset": 0, "nonce": ""})["ok"]
    return browser


def test_a_finished_answer_is_read_whole(url: str, old: OldBuild) -> None:
    browser = watched(url, old, "old-finished")
    done = browser.wait_for_done("old-finished")
    assert (done["status"], done["code"]) == ("finished", "stop")
    assert done["usage"]["completion_tokens"] == len(old.question("old-finished"))
    assert browser.text["old-finished"] == old.question("old-finished")
    assert set(browser.parts["old-finished"]) == {"answer"} and "parts" not in done, "it knew no reasoning"
    browser.close()


def test_a_cancelled_answer_keeps_what_was_said(url: str, old: OldBuild) -> None:
    browser = watched(url, old, "old-cancelled")
    assert browser.wait_for_done("old-cancelled")["status"] == "cancelled"
    text = browser.text["old-cancelled"]
    assert text and old.question("old-cancelled").startswith(text)
    assert text != old.question("old-cancelled")
    browser.close()


def test_a_failed_answer_says_why(url: str, old: OldBuild) -> None:
    browser = watched(url, old, "old-failed")
    done = browser.wait_for_done("old-failed")
    assert (done["status"], done["code"]) == ("failed", "prompt_too_long")
    assert "tokens" in done["message"]
    browser.close()


def test_an_answer_is_still_its_askers_alone(url: str, old: OldBuild) -> None:
    browser = Browser(url, old.cookie("other"))
    answer = browser.call("watch", {"id": "old-finished", "offset": 0, "nonce": ""})
    assert (answer["ok"], answer["error"]["code"]) == (False, "forbidden")
    browser.close()


def test_a_dead_letter_is_listed(chatserver: Command) -> None:
    (letter,) = json.loads(chatserver("dead", "--json"))
    assert (letter["model"], letter["reason"], letter["user"]) == ("echo", "expired", "cli-operator")


def test_a_worker_takes_over_in_the_middle_of_the_answer_and_then_answers_who_waits(
    system: System, url: str, old: OldBuild, chatserver: Command
) -> None:
    """One slot: the half-done answer comes first, the batch request last."""
    revived = chatserver("dead", "retry", "all").split()[-1]
    owner = system.redis.hget("chatserver:{old-halfway}:state", "wid")
    halfway = watched(url, old, "old-halfway")
    halfway.wait_for_text("old-halfway", 4)
    assert 0 < len(halfway.text["old-halfway"]) < len(old.question("old-halfway"))
    waiting = {rid: watched(url, old, rid, user) for rid, user in QUEUED.items()}
    system.echo_worker("--rate", "100", "--chunk", "8", "--slots", "1")
    assert halfway.wait_for_done("old-halfway")["status"] == "finished"
    assert halfway.text["old-halfway"] == old.question("old-halfway")
    assert halfway.problems == []
    assert system.redis.hget("chatserver:{old-halfway}:state", "wid") != owner
    for rid, browser in waiting.items():
        assert browser.wait_for_done(rid)["status"] == "finished"
        assert browser.text[rid] == old.question(rid)
        browser.close()
    halfway.close()
    begun = {rid: int(system.redis.hget(f"chatserver:{{{rid}}}:state", "begun_ms")) for rid in QUEUED}
    assert max(begun, key=lambda rid: begun[rid]) == "old-queued-batch"
    state = f"chatserver:{{{revived}}}:state"
    wait_until(lambda: system.redis.hget(state, "status") == b"finished", "the answer to the dead letter")
    assert json.loads(chatserver("dead", "--json")) == []
    assert json.loads(chatserver("status", "--json"))["requests_in_flight"] == 0
