"""The keyboard shortcuts of the chat page, in a real Chromium."""

import pytest
from playwright.sync_api import Page, expect

from tests.end_to_end.chat_page import ask, await_end

pytestmark = pytest.mark.browser


def test_letters_outside_the_box_do_what_the_list_says(browser_page: Page) -> None:
    keyboard, box = browser_page.keyboard, browser_page.get_by_test_id("input")
    ask(browser_page, "Look:\n\n```\nthe code\n```")
    await_end(browser_page)
    keyboard.type("nm?")
    expect(box).to_have_value("nm?")
    box.fill("")
    keyboard.press("Escape")
    expect(box).not_to_be_focused()
    keyboard.press("k")
    expect(browser_page.get_by_test_id("status")).to_have_text("Copied the last code")
    assert browser_page.evaluate("navigator.clipboard.readText()") == "the code"
    keyboard.press("c")
    assert browser_page.evaluate("navigator.clipboard.readText()") == "Look:\n\n```\nthe code\n```"
    keyboard.press("m")
    expect(box).to_be_focused()
    expect(box).to_have_value("")
    keyboard.press("Escape")
    keyboard.press("n")
    expect(browser_page.get_by_test_id("empty")).to_be_visible()
    expect(box).to_be_focused()
    keyboard.press("Escape")
    keyboard.press("s")
    expect(browser_page.get_by_test_id("search")).to_be_focused()
    expect(browser_page.get_by_test_id("search")).to_have_value("")
    browser_page.get_by_test_id("search").blur()
    keyboard.press("Control+n")
    expect(box).not_to_be_focused()


def test_a_question_mark_lists_them_and_they_can_be_switched_off(browser_page: Page) -> None:
    keyboard, panel = browser_page.keyboard, browser_page.get_by_test_id("shortcuts-panel")
    keyboard.press("Escape")
    keyboard.press("?")
    expect(panel).to_be_visible()
    expect(browser_page.get_by_test_id("shortcut-list").locator("dt")).to_have_text(["N", "M", "S", "C", "K", "?"])
    browser_page.get_by_test_id("shortcuts-enabled").uncheck()
    keyboard.press("Escape")
    expect(panel).to_be_hidden()
    keyboard.press("?")
    expect(panel).to_be_hidden()
    browser_page.reload()
    browser_page.get_by_test_id("shortcuts").click()
    expect(browser_page.get_by_test_id("shortcuts-enabled")).not_to_be_checked()
