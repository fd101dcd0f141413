"""What the page says while an answer does not come: each state by its name, with the time that it lasts."""

import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from tests.end_to_end.system import System, running_system

pytestmark = pytest.mark.browser

WORDS = " ".join(f"word{i}" for i in range(60))


@pytest.fixture
def idle(tmp_path: Path) -> Iterator[System]:
    """Redis alone, which knows the model `echo` from an earlier worker."""
    with running_system(tmp_path) as made:
        made.redis.sadd(made.keys.models, "echo")
        yield made


def asked(page: Page, url: str, text: str) -> Locator:
    """A question in a new conversation; what the page says of its answer."""
    page.goto(url)
    page.get_by_test_id("input").fill(text)
    page.get_by_test_id("send").click()
    return page.locator("[data-testid=message][data-role=assistant]").last


def test_each_wait_is_told_by_its_name_and_for_how_long(browser: Browser, idle: System, tmp_path: Path) -> None:
    url = idle.web()
    page = browser.new_page(viewport={"width": 1280, "height": 800})
    answer = asked(page, url, WORDS)
    waiting = answer.get_by_test_id("waiting")
    expect(waiting).to_have_text("Waiting for a worker that serves echo")
    expect(answer.locator(".elapsed")).to_have_text(re.compile(r"\d+ s"))
    expect(page.locator("#no-worker")).to_contain_text("No worker is serving right now")
    page.screenshot(path=tmp_path / "no_worker.png")

    idle.registry.announce_loading("echo")
    expect(waiting).to_have_text("Waiting while a worker loads echo")
    page.screenshot(path=tmp_path / "loading.png")

    worker = idle.echo_worker("--rate", "2", "--chunk", "4", "--slots", "1")
    expect(answer.locator("> .prose")).not_to_be_empty()
    expect(answer).to_have_attribute("data-state", "running")
    expect(page.locator("#no-worker")).to_be_hidden()
    second = browser.new_page()
    expect(asked(second, url, "me too").get_by_test_id("waiting")).to_have_text("You are next")

    worker.send_signal(signal.SIGKILL)
    expect(waiting).to_have_text("Interrupted. It continues by itself.")
    expect(answer.locator(".elapsed")).to_have_text(re.compile(r"\d+ s"))
    page.screenshot(path=tmp_path / "interrupted.png")
    part = answer.locator("> .prose").inner_text().strip()
    assert part and WORDS.startswith(part) and part != WORDS

    idle.echo_worker("--rate", "100", "--chunk", "4")
    expect(answer).to_have_attribute("data-state", "finished")
    assert answer.locator("> .prose").inner_text().strip() == WORDS
    second.close()
    page.close()
