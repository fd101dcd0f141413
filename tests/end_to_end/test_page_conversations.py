"""Conversations on the server, as the page shows them: found, filed, deleted, exported, shared, on two devices."""

import json
import signal
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect

from tests.end_to_end.chat_page import (
    answer,
    ask,
    await_end,
    await_text,
    choose,
    download_of,
    open_conversation,
    prose,
)
from tests.end_to_end.system import System

pytestmark = pytest.mark.browser

WORDS = " ".join(f"word{i}" for i in range(60))


def asked(page: Page, *questions: str) -> None:
    """A conversation for each question, which is its title too."""
    for question in questions:
        page.get_by_test_id("new-conversation").click()
        ask(page, question)
        await_end(page)


def test_a_second_device_shows_the_running_answer_and_what_follows(
    browser: Browser, browser_context: BrowserContext, browser_page: Page, chat_url: str
) -> None:
    ask(browser_page, WORDS)
    await_text(browser_page)
    device = browser.new_context(storage_state={"cookies": browser_context.cookies(), "origins": []})
    other = device.new_page()
    other.goto(chat_url)
    expect(other.get_by_test_id("running")).to_be_visible()
    await_end(other)
    assert prose(other) == WORDS
    await_end(browser_page)
    ask(other, "from the other device")
    await_end(other)
    expect(browser_page.get_by_test_id("message")).to_have_count(4)
    await_end(browser_page)
    assert prose(browser_page) == "from the other device"
    expect(browser_page.get_by_test_id("running")).to_have_count(0)
    device.close()


def test_a_search_finds_a_message_shows_where_and_leads_to_it(browser_page: Page) -> None:
    asked(browser_page, "The heron waits", "Call `read_config(path)` now", "Nothing here")
    browser_page.get_by_test_id("search").fill("read_config")
    results = browser_page.get_by_test_id("result")
    expect(results.locator("mark")).to_have_text(["read_config"] * 3)
    assert [result.get_attribute("data-role") for result in results.all()] == ["title", "assistant", "user"]
    results.nth(1).locator("button").click()
    expect(browser_page.locator(".message.found")).to_contain_text("read_config(path)")
    expect(browser_page.get_by_test_id("message")).to_have_count(2)
    for strange in ('"', "AND OR NOT (", "%", "*"):
        browser_page.get_by_test_id("search").fill(strange)
        expect(browser_page.get_by_test_id("search-words")).to_have_text("Nothing found")
    browser_page.get_by_test_id("search").press("Escape")
    expect(browser_page.get_by_test_id("conversation")).to_have_count(3)


def test_a_search_leads_to_a_version_that_is_not_shown(browser_page: Page) -> None:
    ask(browser_page, "about herons")
    await_end(browser_page)
    browser_page.get_by_test_id("edit").click()
    browser_page.get_by_test_id("edit-input").fill("about storks")
    browser_page.get_by_test_id("edit-send").click()
    await_end(browser_page)
    browser_page.get_by_test_id("search").fill("herons")
    browser_page.get_by_test_id("result").last.locator("button").click()
    expect(answer(browser_page)).to_contain_text("about herons")
    expect(browser_page.get_by_test_id("version")).to_have_text("1/2")


def test_a_pinned_conversation_stays_on_top_and_a_folder_shows_its_own(browser_page: Page) -> None:
    asked(browser_page, "first", "second", "third")
    titles = browser_page.get_by_test_id("conversation")
    expect(titles).to_have_text(["third", "second", "first"])
    choose(browser_page, "pin", "first")
    expect(titles).to_have_text(["first", "third", "second"])
    choose(browser_page, "move", "second")
    browser_page.get_by_test_id("move-folder").fill("work")
    browser_page.get_by_test_id("move-save").click()
    browser_page.reload()
    expect(titles).to_have_text(["first", "third", "second"])
    browser_page.get_by_test_id("folder").select_option("work")
    expect(titles).to_have_text(["second"])
    browser_page.get_by_test_id("folder").select_option("")
    expect(titles).to_have_count(3)


def test_a_deletion_can_be_undone(browser_page: Page) -> None:
    asked(browser_page, "keep me")
    choose(browser_page, "delete")
    expect(browser_page.get_by_test_id("conversation")).to_have_count(0)
    browser_page.get_by_test_id("toast-button").click()
    expect(browser_page.get_by_test_id("conversation")).to_have_text("keep me")
    browser_page.get_by_test_id("conversation").locator(".open").click()
    expect(answer(browser_page)).to_contain_text("keep me")
    browser_page.reload()
    expect(browser_page.get_by_test_id("conversation")).to_have_text("keep me")


def test_what_is_exported_can_be_imported_by_somebody_else(
    browser: Browser, browser_page: Page, chat_url: str, tmp_path: Path
) -> None:
    ask(browser_page, "first try")
    await_end(browser_page)
    browser_page.get_by_test_id("edit").click()
    browser_page.get_by_test_id("edit-input").fill("second try")
    browser_page.get_by_test_id("edit-send").click()
    await_end(browser_page)
    file = tmp_path / "export.json"
    file.write_text(download_of(browser_page, "json"), "utf-8")
    assert json.loads(file.read_text("utf-8"))
    assert "second try" in download_of(browser_page, "markdown")
    stranger = browser.new_context()
    page = stranger.new_page()
    page.goto(chat_url)
    expect(page.get_by_test_id("model")).to_have_value("echo")
    expect(page.get_by_test_id("conversation")).to_have_count(0)
    page.get_by_test_id("import-file").set_input_files(file)
    expect(page.get_by_test_id("toast")).to_contain_text("1 conversation imported")
    page.get_by_test_id("conversation").locator(".open").click()
    expect(answer(page)).to_contain_text("second try")
    expect(page.get_by_test_id("version")).to_have_text("2/2")
    stranger.close()


def test_a_shared_link_shows_the_conversation_to_a_stranger_until_it_is_ended(
    browser: Browser, browser_page: Page
) -> None:
    asked(browser_page, "for **all** to read")
    choose(browser_page, "share")
    expect(browser_page.get_by_test_id("share-link")).to_be_hidden()
    browser_page.get_by_test_id("share-make").click()
    link = browser_page.get_by_test_id("share-link")
    expect(link).to_be_visible()
    stranger = browser.new_context()
    page = stranger.new_page()
    page.goto(link.input_value())
    expect(page.get_by_test_id("shared-title")).to_contain_text("for")
    expect(page.locator("[data-role=assistant] > .prose strong")).to_have_text("all")
    expect(page.get_by_test_id("edit")).to_have_count(0)
    expect(page.get_by_test_id("regenerate")).to_have_count(0)
    browser_page.get_by_test_id("share-end").click()
    expect(link).to_be_hidden()
    page.reload()
    expect(page.get_by_test_id("shared-words")).to_contain_text("does not lead to a conversation")
    stranger.close()


def test_the_next_question_waits_for_the_answer_and_can_be_taken_back(browser_page: Page, system: System) -> None:
    box, waiting = browser_page.get_by_test_id("input"), browser_page.get_by_test_id("next-question")
    worker = system.processes[0]
    worker.send_signal(signal.SIGSTOP)
    try:
        ask(browser_page, WORDS)
        ask(browser_page, "and then?")
        ask(browser_page, "never mind")
        expect(waiting).to_have_count(2)
        expect(box).to_have_value("")
        waiting.last.get_by_test_id("next-remove").click()
        expect(waiting).to_contain_text(["and then?"])
        expect(box).to_have_value("never mind")
    finally:
        worker.send_signal(signal.SIGCONT)
    expect(browser_page.get_by_test_id("message")).to_have_count(4)
    await_end(browser_page)
    expect(waiting).to_have_count(0)
    contents = [message["content"] for message in open_conversation(browser_page)["messages"]]
    assert contents[:3] == [WORDS, WORDS, "and then?"]


def test_a_question_that_was_asked_without_a_connection_is_sent_by_the_next_page(
    browser_context: BrowserContext, browser_page: Page
) -> None:
    browser_context.set_offline(True)
    ask(browser_page, "written on the train")
    expect(answer(browser_page).get_by_test_id("waiting")).to_have_text("Sending…")
    address = browser_page.url
    browser_page.close()
    browser_context.set_offline(False)
    later = browser_context.new_page()
    later.goto(address)
    await_end(later)
    assert prose(later) == "written on the train"
    assert len(open_conversation(later)["messages"]) == 2


def test_what_earlier_pages_kept_in_the_browser_moves_to_the_server_by_a_button(browser_page: Page) -> None:
    kept = {
        "id": "kept",
        "title": "From before",
        "model": "echo",
        "system": "",
        "updated_ms": 1_700_000_000_000,
        "messages": [
            {"id": "q", "role": "user", "content": "old question", "state": "finished", "created_ms": 1},
            {"id": "a", "role": "assistant", "content": "old answer", "state": "finished", "created_ms": 2},
        ],
    }
    browser_page.evaluate("kept => localStorage.setItem('chatserver.conversation.kept', kept)", json.dumps(kept))
    browser_page.reload()
    move = browser_page.get_by_test_id("move-kept")
    expect(move).to_have_text("Move 1 conversation from this browser to the server")
    expect(browser_page.get_by_test_id("conversation")).to_have_count(0)
    move.click()
    expect(move).to_be_hidden()
    assert browser_page.evaluate("localStorage.getItem('chatserver.conversation.kept')") is None
    browser_page.get_by_test_id("conversation").locator(".open").click()
    expect(answer(browser_page)).to_contain_text("old answer")


def test_a_conversation_has_its_own_settings_on_the_server(browser_page: Page) -> None:
    asked(browser_page, "short")
    browser_page.get_by_test_id("settings").click()
    expect(browser_page.get_by_test_id("settings-scope")).to_contain_text("short")
    browser_page.get_by_test_id("setting-system").fill("Be brief.")
    browser_page.get_by_test_id("setting-max-tokens").fill("9")
    browser_page.get_by_test_id("more-options").locator("summary").click()
    browser_page.get_by_test_id("setting-top_p").fill("0.5")
    browser_page.get_by_test_id("preset-keep").click()
    expect(browser_page.locator("#preset-name")).to_be_focused()
    browser_page.get_by_test_id("preset-name").fill("brief")
    browser_page.get_by_test_id("preset-keep").click()
    browser_page.get_by_test_id("settings-save").click()
    browser_page.reload()
    browser_page.get_by_test_id("settings").click()
    expect(browser_page.get_by_test_id("setting-system")).to_have_value("Be brief.")
    expect(browser_page.get_by_test_id("setting-top_p")).to_have_value("0.5")
    browser_page.keyboard.press("Escape")
    told = open_conversation(browser_page)
    assert (told["system"], told["settings"]["sampling"]) == ("Be brief.", {"top_p": 0.5, "max_new_tokens": 9})
    browser_page.get_by_test_id("new-conversation").click()
    browser_page.get_by_test_id("settings").click()
    expect(browser_page.get_by_test_id("setting-system")).to_have_value("")
    browser_page.get_by_test_id("preset").select_option("brief")
    expect(browser_page.get_by_test_id("setting-system")).to_have_value("Be brief.")


def test_a_wrong_option_is_told_at_its_field_also_where_the_options_are_folded(browser_page: Page) -> None:
    """It was dropped without a word, and the dialog closed."""
    panel, options = browser_page.get_by_test_id("settings-panel"), browser_page.get_by_test_id("more-options")
    browser_page.get_by_test_id("settings").click()
    options.locator("summary").click()
    field = browser_page.get_by_test_id("setting-top_p")
    field.fill("7")
    options.locator("summary").click()
    for button in ("settings-save", "preset-keep"):
        browser_page.get_by_test_id("preset-name").fill("wrong")
        browser_page.get_by_test_id(button).click()
        expect(panel).to_be_visible()
        expect(options).to_have_attribute("open", "")
        expect(field).to_be_focused()
    expect(browser_page.get_by_test_id("preset").locator("option")).to_have_count(1)
    field.fill("0.5")
    browser_page.get_by_test_id("settings-save").click()
    expect(panel).to_be_hidden()
