"""The chat page in a real Chromium, against the whole system with the slow `echo` model (it repeats the last message).

`chat_url` (conftest.py) is the running system. Build the page first: `npm ci && npm run build` in webapp/frontend.
"""

import json
import re

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, WebSocketRoute, expect

from tests.end_to_end.chat_page import answer, ask, await_end, await_text, choose, download_of, prose

pytestmark = pytest.mark.browser

WORDS = " ".join(f"word{i}" for i in range(60))


def test_an_answer_streams_and_says_its_tokens(browser_page: Page) -> None:
    ask(browser_page, WORDS)
    await_text(browser_page)
    expect(answer(browser_page)).to_have_attribute("data-state", "running")
    assert len(prose(browser_page)) < len(WORDS)
    await_end(browser_page)
    assert prose(browser_page) == WORDS
    expect(answer(browser_page).get_by_test_id("usage")).to_contain_text("token")


def test_a_draft_stays_with_its_conversation_and_survives_a_reload(browser_page: Page) -> None:
    """It was lost with a reload, and went along into whatever chat was opened next."""
    box = browser_page.get_by_test_id("input")
    ask(browser_page, "short")
    await_end(browser_page)
    expect(box).to_have_value("")
    box.fill("half a thought")
    browser_page.get_by_test_id("new-conversation").click()
    expect(box).to_have_value("")
    box.fill("another one")
    browser_page.reload()
    expect(box).to_have_value("another one")
    browser_page.go_back()
    expect(answer(browser_page)).to_be_visible()
    expect(box).to_have_value("half a thought")
    browser_page.get_by_test_id("send").click()
    expect(answer(browser_page).locator("> .prose")).to_have_text("half a thought")
    browser_page.reload()
    expect(box).to_have_value("")


def test_stop_keeps_the_part_that_came_and_regenerate_gives_the_whole(browser_page: Page) -> None:
    ask(browser_page, WORDS)
    await_text(browser_page)
    browser_page.get_by_test_id("stop").click()
    await_end(browser_page, "cancelled")
    part = prose(browser_page)
    assert part and WORDS.startswith(part) and part != WORDS
    browser_page.get_by_test_id("regenerate").click()
    await_end(browser_page)
    assert prose(browser_page) == WORDS
    expect(browser_page.get_by_test_id("message")).to_have_count(2)


def test_a_reload_mid_answer_resumes_to_the_full_text(browser_page: Page) -> None:
    ask(browser_page, WORDS)
    await_text(browser_page)
    browser_page.reload()
    await_end(browser_page)
    assert prose(browser_page) == WORDS


def test_an_answer_that_ran_while_no_page_was_open_is_there_afterwards(
    browser_context: BrowserContext, browser_page: Page
) -> None:
    ask(browser_page, WORDS)
    await_text(browser_page)
    address = browser_page.url
    browser_page.close()
    later = browser_context.new_page()
    later.goto(address)
    await_end(later)
    assert prose(later) == WORDS


def test_a_second_tab_mid_answer_ends_with_the_same_text(browser_context: BrowserContext, browser_page: Page) -> None:
    ask(browser_page, WORDS)
    await_text(browser_page)
    second = browser_context.new_page()
    second.goto(browser_page.url)
    await_end(second)
    await_end(browser_page)
    assert prose(second) == prose(browser_page) == WORDS


def test_two_tabs_asking_in_one_conversation_keep_every_message(
    browser_context: BrowserContext, browser_page: Page
) -> None:
    ask(browser_page, "from the first tab")
    await_end(browser_page)
    second = browser_context.new_page()
    second.goto(browser_page.url)
    ask(second, "from the second tab")
    await_end(second)
    expect(browser_page.get_by_test_id("message")).to_have_count(4)
    await_end(browser_page)
    assert prose(browser_page) == "from the second tab"


def test_a_lost_connection_shows_a_banner_and_the_answer_continues(browser_page: Page) -> None:
    lost = False
    sockets: list[WebSocketRoute] = []

    def on_socket(socket: WebSocketRoute) -> None:
        if lost:
            socket.close()
        else:
            socket.connect_to_server()
            sockets.append(socket)

    browser_page.route_web_socket(re.compile("/socket.io/"), on_socket)
    browser_page.route(re.compile("/socket.io/"), lambda route: route.abort() if lost else route.continue_())
    browser_page.reload()
    ask(browser_page, WORDS)
    await_text(browser_page)
    lost = True
    for socket in sockets:
        socket.close()
    expect(browser_page.get_by_test_id("connection")).to_be_visible()
    lost = False
    await_end(browser_page)
    assert prose(browser_page) == WORDS
    expect(browser_page.get_by_test_id("connection")).to_be_hidden()


def test_hostile_text_of_a_model_stays_text(browser_page: Page) -> None:
    requests: list[str] = []
    browser_page.on("request", lambda request: requests.append(request.url))
    evil = (
        "<img src=x onerror=window.hacked=1> <script>window.hacked=1</script> <b onclick=hacked=1>bold</b>\n\n"
        "[link](javascript:window.hacked=1) [data](data:text/html,x) ![picture](https://evil.invalid/secret.png)\n\n"
        "<svg onload=window.hacked=1></svg>\n\n"
        "<iframe src=https://evil.invalid></iframe> [good](https://example.org)"
    )
    ask(browser_page, evil)
    await_end(browser_page)
    text = answer(browser_page).locator("> .prose")
    expect(text).to_contain_text("<img src=x onerror=window.hacked=1>")
    expect(text).to_contain_text("<script>window.hacked=1</script>")
    expect(text.locator("img, script, svg:not(.icon), iframe, b")).to_have_count(0)
    assert text.locator("a").evaluate_all("links => links.map((a) => a.href)") == [
        "https://evil.invalid/secret.png",
        "https://example.org/",
    ]
    expect(text.locator("a").last).to_have_attribute("rel", "noopener noreferrer nofollow")
    expect(text.locator("a").last).to_have_attribute("target", "_blank")
    assert browser_page.evaluate("window.hacked") is None
    assert [url for url in requests if "evil.invalid" in url] == []


def test_markdown_keeps_its_structure(browser_page: Page) -> None:
    ask(browser_page, "3. three\n4. four\n\n| a | b |\n|---|--:|\n| 1 | 2 |\n\n- [x] done\n\n`<i>` **strong**")
    await_end(browser_page)
    text = answer(browser_page).locator("> .prose")
    expect(text.locator("ol")).to_have_attribute("start", "3")
    expect(text.locator("td").last).to_have_css("text-align", "right")
    expect(text.locator("ul")).to_have_text("☑ done")
    expect(text.locator("p code")).to_have_text("<i>")
    expect(text.locator("strong")).to_have_text("strong")


def test_copy_buttons_copy_the_code_and_the_answer(browser_page: Page) -> None:
    text = "Look:\n\n```python\nprint('<hi>')\n```"
    ask(browser_page, text)
    await_end(browser_page)
    code = answer(browser_page).locator(".code")
    expect(code.locator(".code-language")).to_have_text("python")
    expect(code.locator("[class^=hljs]").first).to_be_attached()
    code.get_by_test_id("copy").click()
    expect(code.get_by_test_id("copy")).to_have_text("Copied")
    assert browser_page.evaluate("navigator.clipboard.readText()") == "print('<hi>')"
    answer(browser_page).locator(".foot").get_by_test_id("copy").click()
    assert browser_page.evaluate("navigator.clipboard.readText()") == text


def test_everything_works_by_keyboard(browser_page: Page) -> None:
    keyboard = browser_page.keyboard
    expect(browser_page.get_by_test_id("input")).to_be_focused()
    keyboard.type("one")
    keyboard.press("Shift+Enter")
    keyboard.type("two")
    expect(browser_page.get_by_test_id("input")).to_have_value("one\ntwo")
    keyboard.press("Enter")
    await_end(browser_page)
    keyboard.type(WORDS)
    keyboard.press("Enter")
    await_text(browser_page)
    keyboard.press("Escape")
    await_end(browser_page, "cancelled")
    expect(browser_page.get_by_test_id("input")).to_be_focused()
    keyboard.press("Shift+Tab")
    assert browser_page.evaluate("document.activeElement.closest('[data-testid=message]') !== null")


def test_an_enter_that_ends_a_composition_does_not_send(browser_page: Page) -> None:
    """Japanese and Chinese input confirm a word with Enter."""
    box = browser_page.get_by_test_id("input")
    box.fill("にほん")
    box.evaluate("e => e.dispatchEvent(new KeyboardEvent('keydown', {key: 'Enter', isComposing: true, bubbles: true}))")
    expect(box).to_have_value("にほん")
    expect(browser_page.get_by_test_id("message")).to_have_count(0)


def test_the_log_is_busy_while_an_answer_streams(browser_page: Page) -> None:
    log = browser_page.get_by_test_id("transcript")
    expect(log).to_have_attribute("aria-busy", "false")
    ask(browser_page, WORDS)
    expect(log).to_have_attribute("aria-busy", "true")
    await_text(browser_page)
    expect(log).to_have_attribute("aria-busy", "true")
    await_end(browser_page)
    expect(log).to_have_attribute("aria-busy", "false")
    expect(browser_page.get_by_test_id("status")).to_have_text("The answer is complete")


def test_a_phone_has_no_horizontal_scroll_and_a_drawer(browser: Browser, chat_url: str) -> None:
    context = browser.new_context(viewport={"width": 360, "height": 740}, is_mobile=True, has_touch=True)
    page = context.new_page()
    page.goto(chat_url)
    expect(page.get_by_test_id("model")).to_have_value("echo")
    ask(page, "```\n" + "long line of code " * 12 + "\n```\n\n" + "x" * 300 + "\n\n| a | b |\n|---|---|\n| 1 | 2 |")
    await_end(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    assert page.evaluate("document.querySelector('#scroller').scrollWidth") <= 360
    sizes = (
        "[...document.querySelectorAll('textarea, input, select')].map((e) => parseFloat(getComputedStyle(e).fontSize))"
    )
    assert min(page.evaluate(sizes)) >= 16  # iOS zooms into anything smaller
    page.get_by_test_id("menu").click()
    page.get_by_test_id("new-conversation").click()
    expect(page.get_by_test_id("empty")).to_be_visible()
    context.close()


def test_scrolling_up_stops_following_until_asked(browser_page: Page) -> None:
    ask(browser_page, "\n\n".join(f"paragraph {i}" for i in range(60)))
    scroller = browser_page.locator("#scroller")
    expect(answer(browser_page).locator(".block").nth(12)).to_be_attached()
    scroller.hover()
    browser_page.mouse.wheel(0, -400)
    expect(browser_page.get_by_test_id("jump")).to_be_visible()
    top = scroller.evaluate("e => e.scrollTop")
    await_end(browser_page)
    assert scroller.evaluate("e => e.scrollTop") == top
    browser_page.get_by_test_id("jump").click()
    expect(browser_page.get_by_test_id("jump")).to_be_hidden()
    assert scroller.evaluate("e => e.scrollHeight - e.scrollTop - e.clientHeight") < 2


def test_the_last_question_can_be_edited_and_sent_again(browser_page: Page) -> None:
    ask(browser_page, "first try")
    await_end(browser_page)
    browser_page.get_by_test_id("edit").click()
    browser_page.get_by_test_id("edit-input").fill("second try")
    browser_page.get_by_test_id("edit-send").click()
    expect(answer(browser_page).locator("> .prose")).to_have_text("second try")
    await_end(browser_page)
    expect(browser_page.get_by_test_id("message")).to_have_count(2)


def test_conversations_can_be_renamed_exported_and_deleted(browser_page: Page) -> None:
    ask(browser_page, "hello there")
    await_end(browser_page)
    item = browser_page.get_by_test_id("conversation")
    expect(item).to_have_text("hello there")
    choose(browser_page, "rename")
    browser_page.get_by_test_id("rename-input").fill("Greetings")
    browser_page.keyboard.press("Enter")
    expect(item).to_have_text("Greetings")
    assert "Greetings" in download_of(browser_page, "markdown")
    assert json.loads(download_of(browser_page, "openai"))["messages"] == [
        {"role": "user", "content": "hello there"},
        {"role": "assistant", "content": "hello there"},
    ]
    choose(browser_page, "delete")
    expect(item).to_have_count(0)
    expect(browser_page.get_by_test_id("empty")).to_be_visible()


def test_settings_are_kept_and_sent(browser_page: Page) -> None:
    browser_page.get_by_test_id("settings").click()
    browser_page.get_by_test_id("setting-max-tokens").fill("3")
    browser_page.get_by_test_id("setting-system").fill("Be brief.")
    browser_page.get_by_test_id("settings-save").click()
    browser_page.reload()
    browser_page.get_by_test_id("settings").click()
    expect(browser_page.get_by_test_id("setting-max-tokens")).to_have_value("3")
    expect(browser_page.get_by_test_id("setting-system")).to_have_value("Be brief.")


def test_the_temperature_is_the_models_own_until_somebody_chooses_one(browser_page: Page) -> None:
    browser_page.get_by_test_id("settings").click()
    shown = browser_page.locator("#temperature-value")
    expect(shown).to_have_text("0.7, this model's default")
    browser_page.get_by_test_id("settings-save").click()
    browser_page.get_by_test_id("settings").click()
    expect(shown).to_have_text("0.7, this model's default")
    browser_page.get_by_test_id("setting-temperature").fill("0.3")
    browser_page.get_by_test_id("settings-save").click()
    browser_page.reload()
    browser_page.get_by_test_id("settings").click()
    expect(shown).to_have_text("0.3")
    browser_page.get_by_text("Defaults", exact=True).click()
    expect(shown).to_have_text("0.7, this model's default")


def test_a_full_storage_is_told_and_the_chat_goes_on(browser_page: Page) -> None:
    browser_page.evaluate(
        "() => { for (let size = 1 << 22; size > 8; size >>= 1)"
        " try { for (let i = 0; ; i++) localStorage.setItem(`fill${size}.${i}`, 'x'.repeat(size)) } catch {} }"
    )
    ask(browser_page, "still works")
    await_end(browser_page)
    assert prose(browser_page) == "still works"
    expect(browser_page.get_by_test_id("storage-full")).to_be_visible()


def test_emoji_and_astral_letters_survive_a_reload(browser_page: Page) -> None:
    """Offsets are code points; a client that counts UTF-16 units asks for the wrong place."""
    text = " ".join("👩‍🚀𝔘é中" for _ in range(40))
    ask(browser_page, text)
    await_text(browser_page)
    browser_page.reload()
    await_text(browser_page)
    browser_page.reload()
    await_end(browser_page)
    assert prose(browser_page) == text
