"""Versions of questions and answers, in a real Chromium: nothing that was said is lost."""

import re

import pytest
from playwright.sync_api import Page, expect

from tests.end_to_end.chat_page import answer, ask, await_end, await_text, open_conversation, prose

pytestmark = pytest.mark.browser

WORDS = " ".join(f"word{i}" for i in range(60))


def test_editing_an_earlier_question_makes_a_version_and_leaves_what_followed_the_old_one(browser_page: Page) -> None:
    messages = browser_page.get_by_test_id("message")
    for question in ("one", "two", "three"):
        ask(browser_page, question)
        await_end(browser_page)
    address = browser_page.url
    browser_page.get_by_test_id("edit").nth(1).click()
    expect(browser_page.get_by_test_id("edit-note")).to_contain_text("new version")
    browser_page.get_by_test_id("edit-input").fill("two, but otherwise")
    browser_page.get_by_test_id("edit-send").click()
    expect(answer(browser_page).locator("> .prose")).to_have_text("two, but otherwise")
    await_end(browser_page)
    assert browser_page.url == address
    expect(messages).to_have_count(4)
    expect(browser_page.get_by_test_id("version")).to_have_text("2/2")
    browser_page.reload()
    expect(answer(browser_page)).to_contain_text("two, but otherwise")
    browser_page.get_by_test_id("version-before").click()
    expect(messages).to_have_count(6)
    expect(messages.nth(2)).to_contain_text("two")
    expect(answer(browser_page)).to_contain_text("three")
    expect(browser_page.get_by_test_id("conversation")).to_have_text("one")
    browser_page.reload()
    expect(messages).to_have_count(6)
    assert len(open_conversation(browser_page)["messages"]) == 8


def test_an_answer_that_is_made_again_leaves_the_one_before(browser_page: Page) -> None:
    ask(browser_page, WORDS)
    await_text(browser_page)
    browser_page.get_by_test_id("stop").click()
    await_end(browser_page, "cancelled")
    part = prose(browser_page)
    browser_page.get_by_test_id("regenerate").click()
    await_end(browser_page)
    assert prose(browser_page) == WORDS
    expect(browser_page.get_by_test_id("version")).to_have_text("2/2")
    browser_page.get_by_test_id("version-before").click()
    expect(answer(browser_page)).to_have_attribute("data-state", "cancelled")
    assert prose(browser_page) == part
    expect(browser_page.get_by_test_id("version-before")).to_be_disabled()


def test_a_stopped_answer_goes_on_where_it_ended_and_stays_as_it_was(browser_page: Page) -> None:
    """The echo model does not continue: it says what it was asked, behind what it was given."""
    ask(browser_page, WORDS)
    await_text(browser_page)
    browser_page.get_by_test_id("stop").click()
    await_end(browser_page, "cancelled")
    part = prose(browser_page)
    browser_page.get_by_test_id("continue").click()
    await_end(browser_page)
    assert prose(browser_page).startswith(part)
    assert len(prose(browser_page)) > len(part)
    expect(browser_page.get_by_test_id("version")).to_have_text("2/2")
    browser_page.reload()
    expect(answer(browser_page)).to_have_attribute("data-state", "finished")
    assert prose(browser_page).startswith(part)
    browser_page.get_by_test_id("version-before").click()
    expect(answer(browser_page).locator("> .prose")).to_have_text(re.compile(f"^{re.escape(part)}"))
