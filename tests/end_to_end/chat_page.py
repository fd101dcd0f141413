"""What a user does on the chat page and sees there. The tests of the page call it."""

import re

from playwright.sync_api import Locator, Page, expect

LONG_MS = 60_000


def answer(page: Page) -> Locator:
    return page.locator("[data-testid=message][data-role=assistant]").last


def ask(page: Page, text: str) -> None:
    page.get_by_test_id("input").fill(text)
    page.get_by_test_id("send").click()


def await_text(page: Page) -> None:
    """Until the answer is under way."""
    expect(answer(page).locator("> .prose")).not_to_be_empty(timeout=LONG_MS)


def await_end(page: Page, state: str | re.Pattern[str] = "finished") -> None:
    expect(answer(page)).to_have_attribute("data-state", state, timeout=LONG_MS)


def prose(page: Page) -> str:
    return answer(page).locator("> .prose").inner_text().strip()
