"""Texts attached to a question, in a real Chromium: long pastes, dropped and chosen files."""

import re

import pytest
from playwright.sync_api import Page, expect

from tests.end_to_end.chat_page import answer, ask, await_end, await_text, open_conversation

pytestmark = pytest.mark.browser

LONG = "\n".join(f"line {i} of a long paste" for i in range(250))
CHOSEN = {"name": "notes.txt", "mimeType": "text/plain", "buffer": b"first\nsecond"}


def paste(page: Page, text: str) -> None:
    page.evaluate("text => navigator.clipboard.writeText(text)", text)
    page.get_by_test_id("input").focus()
    page.keyboard.press("Control+v")


def test_a_long_paste_becomes_an_attachment_that_is_sent_with_the_question(browser_page: Page) -> None:
    box, chips = browser_page.get_by_test_id("input"), browser_page.locator("#composer").get_by_test_id("attachment")
    paste(browser_page, "a short one")
    expect(box).to_have_value("a short one")
    expect(chips).to_have_count(0)
    paste(browser_page, LONG)
    expect(box).to_have_value("a short one")
    expect(chips).to_contain_text("Pasted text")
    expect(chips).to_contain_text(f"{len(LONG):,} characters")
    browser_page.get_by_test_id("attachment-view").click()
    expect(browser_page.get_by_test_id("attachment-text")).to_have_text(LONG)
    browser_page.get_by_test_id("attachment-close").click()
    browser_page.reload()
    expect(chips).to_have_count(1)
    expect(box).to_have_value("a short one")
    browser_page.get_by_test_id("send").click()
    question = browser_page.locator("[data-role=user]")
    expect(question.locator(".bubble")).to_have_text("a short one")
    expect(question.get_by_test_id("attachment")).to_contain_text("Pasted text")
    expect(chips).to_have_count(0)
    await_text(browser_page)
    sent = open_conversation(browser_page)["messages"][0]["content"]
    assert sent == f'a short one\n\nAttached text "Pasted text":\n```\n{LONG}\n```'
    browser_page.get_by_test_id("stop").click()
    await_end(browser_page, re.compile("finished|cancelled"))
    browser_page.reload()
    expect(question.get_by_test_id("attachment")).to_have_count(1)
    expect(chips).to_have_count(0)


def test_an_attachment_can_be_removed_or_put_into_the_box(browser_page: Page) -> None:
    chips = browser_page.locator("#composer").get_by_test_id("attachment")
    paste(browser_page, LONG)
    browser_page.get_by_test_id("attachment-view").click()
    browser_page.get_by_test_id("attachment-insert").click()
    expect(browser_page.get_by_test_id("input")).to_have_value(LONG)
    expect(chips).to_have_count(0)
    browser_page.get_by_test_id("attach-files").set_input_files([CHOSEN, CHOSEN])
    expect(chips).to_have_count(2)
    expect(chips.nth(1)).to_contain_text("notes.txt (2)")
    chips.nth(0).get_by_test_id("attachment-remove").click()
    expect(chips).to_have_count(1)
    expect(browser_page.get_by_test_id("input")).to_be_focused()


def test_a_dropped_file_is_attached_and_alone_is_a_question(browser_page: Page) -> None:
    browser_page.evaluate(
        "() => { const data = new DataTransfer(); data.items.add(new File(['first\\nsecond'], 'notes.txt'));"
        " document.querySelector('#scroller').dispatchEvent("
        "   new DragEvent('drop', {dataTransfer: data, bubbles: true, cancelable: true})) }"
    )
    expect(browser_page.get_by_test_id("attachment")).to_contain_text("notes.txt")
    browser_page.get_by_test_id("send").click()
    await_end(browser_page)
    expect(answer(browser_page).locator("> .prose pre")).to_have_text("first\nsecond")
    expect(browser_page.get_by_test_id("conversation")).to_have_text("notes.txt")


def test_what_is_no_text_or_too_large_is_refused_with_the_reason_and_the_rest_stays(browser_page: Page) -> None:
    files, refusal = browser_page.get_by_test_id("attach-files"), browser_page.get_by_test_id("refusal")
    browser_page.get_by_test_id("input").fill("look")
    files.set_input_files({"name": "cat.png", "mimeType": "image/png", "buffer": b"\x89PNG\x00\xff"})
    expect(refusal).to_contain_text("cat.png is not a text")
    files.set_input_files({"name": "big.txt", "mimeType": "text/plain", "buffer": b"x" * 2_000_000})
    expect(refusal).to_have_text(re.compile(r"big\.txt has 2,000,000 bytes; this server reads [\d,]+ at most"))
    files.set_input_files(
        [{"name": f"part{i}.txt", "mimeType": "text/plain", "buffer": b"x" * 150_000} for i in range(2)]
    )
    browser_page.get_by_test_id("send").click()
    expect(refusal).to_have_text(
        re.compile(r"Your message has 300,\d{3} characters; this server reads 200,000 at most")
    )
    expect(browser_page.get_by_test_id("attachment")).to_have_count(2)
    expect(browser_page.get_by_test_id("input")).to_have_value("look")
    expect(browser_page.get_by_test_id("message")).to_have_count(0)


def test_editing_a_question_keeps_what_is_attached_to_it(browser_page: Page) -> None:
    browser_page.get_by_test_id("attach-files").set_input_files(CHOSEN)
    ask(browser_page, "what is it?")
    await_end(browser_page)
    browser_page.get_by_test_id("edit").click()
    expect(browser_page.get_by_test_id("edit-input")).to_have_value("what is it?")
    browser_page.get_by_test_id("edit-input").fill("and now?")
    browser_page.get_by_test_id("edit-send").click()
    await_end(browser_page)
    expect(answer(browser_page)).to_contain_text("and now?")
    expect(answer(browser_page).locator("> .prose pre")).to_have_text("first\nsecond")
