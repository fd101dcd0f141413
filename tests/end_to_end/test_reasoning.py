"""Reasoning and answer are two parts from the worker to the page, whatever dies between."""

import os
import re
import signal
import subprocess
import sys
import uuid
from pathlib import Path

import pytest
from playwright.sync_api import Browser as Chromium
from playwright.sync_api import expect

from services.chat.journal import Journal
from services.places import ROOT
from tests.end_to_end.system import Browser, System, wait_until

THOUGHT = "First 2, then 2 more 𝄞, which makes 4.\n\nSo the answer is clear. " * 4 + "Done."
SAID = "It is **4**, and no mark stands here. " * 3 + "Yes."
ASKED = f"<think>\n{THOUGHT}\n</think>\n\n{SAID}"


@pytest.fixture(scope="module")
def thinkers(system: System) -> list[subprocess.Popen[bytes]]:
    """Two workers, so that one can go on where the other was killed."""
    return [system.echo_worker("--model", "thinker", "--reasoning", "--rate", "20") for _ in range(2)]


def kill_owner(system: System, rid: str) -> None:
    head = Journal(system.redis, system.keys).head(rid)
    assert head is not None
    owner = next(worker for worker in system.registry.workers() if worker.wid == head.wid)
    os.kill(owner.pid, signal.SIGKILL)


@pytest.mark.usefixtures("thinkers")
def test_the_parts_are_the_same_after_a_takeover_in_the_middle_of_the_reasoning(system: System, chat_url: str) -> None:
    rid, browser = uuid.uuid4().hex, Browser(chat_url)
    browser.ask(rid, ASKED, model="thinker")
    browser.wait_for_text(rid, 30)
    kill_owner(system, rid)
    done = browser.wait_for_done(rid)
    assert browser.parts[rid] == {"reasoning": THOUGHT, "answer": SAID}
    assert (done["parts"], done["offset"]) == ([[0, "reasoning"], [len(THOUGHT), "answer"]], len(THOUGHT + SAID))
    assert done["usage"]["reasoning_tokens"] >= len(THOUGHT)
    assert browser.problems == []
    late = Browser(chat_url, browser.cookie)
    late.call("watch", {"id": rid, "offset": 0, "nonce": ""})
    assert late.wait_for_done(rid)["parts"] == done["parts"]
    assert late.parts[rid] == browser.parts[rid]
    browser.close()
    late.close()
    system.echo_worker("--model", "thinker", "--reasoning", "--rate", "20")  # for the next test


@pytest.mark.usefixtures("thinkers")
def test_the_command_prints_the_answer_alone(system: System) -> None:
    command = [sys.executable, "-m", "services.command", "send", ASKED, "--model", "thinker"]
    said = subprocess.run(command, cwd=ROOT, env=system.environment, capture_output=True, text=True, check=True)
    assert said.stdout == f"{SAID}\n"


@pytest.mark.browser
@pytest.mark.usefixtures("thinkers")
def test_the_page_folds_the_reasoning_and_shows_the_answer(
    system: System, chat_url: str, browser: Chromium, tmp_path: Path
) -> None:
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    page = context.new_page()
    page.goto(f"{chat_url}/?model=thinker")
    expect(page.get_by_test_id("model")).to_have_value("thinker")
    page.get_by_test_id("input").fill(ASKED)
    page.get_by_test_id("send").click()
    answer = page.locator("[data-testid=message][data-role=assistant]").last
    thinking = answer.get_by_test_id("thinking")
    expect(thinking).to_have_text(re.compile(r"^Thinking…"))
    thinking.click()
    expect(answer.locator(".reasoning .prose")).to_contain_text("First 2")
    rid = answer.get_attribute("data-message-id")
    assert rid is not None
    kill_owner(system, rid)
    page.screenshot(path=tmp_path / "thinking.png")
    expect(answer).to_have_attribute("data-state", "finished")
    expect(thinking).to_have_text(re.compile(r"^Thought for "))
    said = answer.locator("> .prose")
    assert said.inner_text().strip() == SAID.replace("*", "")
    assert "which makes 4" in answer.locator(".reasoning .prose").inner_text()
    answer.get_by_role("button", name="Copy answer").click()
    wait_until(lambda: page.evaluate("navigator.clipboard.readText()") == SAID, "the answer in the clipboard")
    page.screenshot(path=tmp_path / "thought.png")
    page.reload()
    expect(answer.locator("details.reasoning")).to_have_attribute("open", "")
    thinking.click()
    page.reload()
    expect(said).to_contain_text("It is 4")
    expect(answer.locator("details.reasoning")).not_to_have_attribute("open", "")
    page.screenshot(path=tmp_path / "folded.png")
    context.close()


@pytest.mark.browser
@pytest.mark.usefixtures("thinkers")
def test_who_wants_an_answer_at_once_chooses_so_where_the_model_has_the_choice(
    chat_url: str, browser: Chromium, tmp_path: Path
) -> None:
    page = browser.new_page()
    page.goto(f"{chat_url}/?model=thinker")
    expect(page.get_by_test_id("model")).to_have_value("thinker")
    page.get_by_test_id("settings").click()
    page.get_by_test_id("setting-thinking").select_option("off")
    page.screenshot(path=tmp_path / "choice.png")
    page.get_by_test_id("settings-save").click()
    page.get_by_test_id("input").fill("<think>hm</think>It is 4.")
    page.get_by_test_id("send").click()
    answer = page.locator("[data-testid=message][data-role=assistant]").last
    expect(answer).to_have_attribute("data-state", "finished")
    expect(answer.locator("> .prose")).to_have_text("It is 4.")
    expect(answer.get_by_test_id("thinking")).to_be_hidden()
    page.get_by_test_id("model").select_option("echo")
    page.get_by_test_id("settings").click()
    expect(page.get_by_test_id("setting-system")).to_be_visible()
    expect(page.get_by_test_id("setting-thinking")).to_be_hidden()
    page.close()
