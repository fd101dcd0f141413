"""What a user does on the chat page and sees there. The tests of the page call it."""

import re
from pathlib import Path
from typing import Any

from playwright.sync_api import Locator, Page, expect

LONG_MS = 60_000


def answer(page: Page) -> Locator:
    return page.locator("[data-testid=message][data-role=assistant]").last


def ask(page: Page, text: str) -> None:
    page.get_by_test_id("input").fill(text)
    page.get_by_test_id("send").click()


def await_text(page: Page) -> None:
    """Until the answer is under way."""
    expect(answer(page).locator("> .prose")).not_to_be_empty()


def await_end(page: Page, state: str | re.Pattern[str] = "finished") -> None:
    expect(answer(page)).to_have_attribute("data-state", state)


def prose(page: Page) -> str:
    return answer(page).locator("> .prose").inner_text().strip()


def choose(page: Page, action: str, title: str = "") -> None:
    """An action of the menu of a conversation: of the only one, or of the one with this title."""
    item = page.get_by_test_id("conversation").filter(has_text=title)
    item.get_by_test_id("more").click()
    item.get_by_test_id(action).click()


def download_of(page: Page, form: str) -> str:
    """The file that the menu of the only conversation exports."""
    choose(page, "export")
    with page.expect_download() as download:
        page.get_by_test_id(f"export-{form}").click()
    return Path(download.value.path()).read_text("utf-8")


def open_conversation(page: Page) -> dict[str, Any]:
    """The open conversation as the server has it."""
    told: dict[str, Any] = page.evaluate(
        "async () => (await fetch('/api/conversations/' + location.hash.slice('#/c/'.length))).json()"
    )
    return told
