"""Edit on an earlier question, in a real Chromium: nothing that was said is lost."""

import pytest
from playwright.sync_api import Page, expect

from tests.end_to_end.chat_page import answer, ask, await_end

pytestmark = pytest.mark.browser


def test_editing_an_earlier_question_begins_a_conversation_and_leaves_the_old_one(browser_page: Page) -> None:
    messages = browser_page.get_by_test_id("message")
    for question in ("one", "two", "three"):
        ask(browser_page, question)
        await_end(browser_page)
    old = browser_page.url
    browser_page.get_by_test_id("edit").nth(1).click()
    expect(browser_page.get_by_test_id("edit-note")).to_contain_text("new conversation")
    browser_page.get_by_test_id("edit-input").fill("two, but otherwise")
    browser_page.get_by_test_id("edit-send").click()
    expect(answer(browser_page).locator("> .prose")).to_have_text("two, but otherwise", timeout=60_000)
    await_end(browser_page)
    assert browser_page.url != old
    expect(messages).to_have_count(4)
    expect(messages.first).to_contain_text("one")
    titles = browser_page.get_by_test_id("conversation")
    expect(titles).to_have_text(["Question 2 edited: one", "one"])
    titles.last.locator(".open").click()
    expect(messages).to_have_count(6)
    expect(messages.nth(2)).to_contain_text("two")
    expect(answer(browser_page)).to_contain_text("three")
