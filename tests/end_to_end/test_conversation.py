"""What a conversation sends, on the chat page in a real Chromium: answered rounds, as many as fit, none too large."""

import json
import signal
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.end_to_end.chat_page import answer, ask, await_end, open_conversation, prose
from tests.end_to_end.system import System, running_system, wait_until

pytestmark = pytest.mark.browser

MODEL = "smollm2-135m"
CONTEXT = 256
PARAGRAPH = "The harbour master counts the boats that leave and the boats that come back. " * 3
SENT = """
    window.sent = [];
    const send = WebSocket.prototype.send;
    WebSocket.prototype.send = function (data) { window.sent.push(data); return send.call(this, data); };
"""
"""What the page sends over its WebSocket, as it sends it."""


@contextmanager
def opened(browser: Browser, url: str, model: str, **preferences: object) -> Iterator[Page]:
    """The page with these preferences, ready to send. An uncaught error in it fails the test."""
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    page = context.new_page()
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.add_init_script(SENT)
    kept = json.dumps(json.dumps(preferences))
    page.add_init_script(
        f"localStorage.getItem('chatserver.preferences') ?? localStorage.setItem('chatserver.preferences', {kept})"
    )
    page.goto(url)
    expect(page.get_by_test_id("model")).to_have_value(model)
    yield page
    assert problems == []
    context.close()


def prompt_tokens(page: Page) -> int:
    """Of the newest answer."""
    usage = wait_until(lambda: open_conversation(page)["messages"][-1]["usage"], "the usage of the answer")
    return int(usage["prompt_tokens"])


@pytest.fixture
def echo(browser: Browser, chat_url: str) -> Iterator[Page]:
    with opened(browser, chat_url, "echo") as page:
        yield page


def test_a_stopped_question_is_no_part_of_the_next_one(system: System, echo: Page) -> None:
    worker = system.processes[0]
    worker.send_signal(signal.SIGSTOP)
    try:
        ask(echo, "Tell me about the sea.")
        echo.get_by_test_id("stop").click()
        await_end(echo, "cancelled")
    finally:
        worker.send_signal(signal.SIGCONT)
    ask(echo, "Tell me about the mountains.")
    await_end(echo)
    assert prose(echo) == "Tell me about the mountains."
    after_the_stopped_one = prompt_tokens(echo)
    echo.get_by_test_id("new-conversation").click()
    ask(echo, "Tell me about the mountains.")
    await_end(echo)
    assert after_the_stopped_one == prompt_tokens(echo)


def test_a_message_that_is_too_large_is_refused_before_it_is_sent_and_stays_in_the_box(echo: Page) -> None:
    """The box was emptied, the socket closed, and the message sent again and again."""
    text = "0123456789abc" * 100_000
    ask(echo, text)
    refusal = echo.get_by_test_id("refusal")
    expect(refusal).to_contain_text("1,300,000 characters; this server reads 200,000 at most")
    assert echo.get_by_test_id("input").input_value() == text
    expect(echo.get_by_test_id("message")).to_have_count(0)
    assert not any('"ask"' in message for message in echo.evaluate("window.sent"))
    echo.get_by_test_id("input").fill("short now")
    expect(refusal).to_be_hidden()
    echo.get_by_test_id("send").click()
    await_end(echo)
    assert prose(echo) == "short now"


def test_an_edited_message_that_is_too_large_stays_in_its_editor(echo: Page) -> None:
    ask(echo, "short")
    await_end(echo)
    echo.get_by_test_id("edit").click()
    echo.get_by_test_id("edit-input").fill("x" * 200_001)
    echo.get_by_test_id("edit-send").click()
    expect(echo.get_by_test_id("refusal")).to_contain_text("200,001 characters")
    assert len(echo.get_by_test_id("edit-input").input_value()) == 200_001
    echo.get_by_test_id("edit-input").fill("other")
    echo.get_by_test_id("edit-send").click()
    await_end(echo)
    assert prose(echo) == "other"
    expect(echo.get_by_test_id("refusal")).to_be_hidden()


def test_a_message_that_the_server_cannot_take_fails_after_a_reload_and_the_conversation_goes_on(
    echo: Page,
) -> None:
    ask(echo, "first")
    await_end(echo)
    echo.evaluate(
        """parent => {
            const question = { id: "large-question", content: "x".repeat(1_300_000) };
            const conversation = location.hash.slice("#/c/".length);
            const ask = { conversation, id: "large-answer", parent, question, model: "echo" };
            const unsent = { ask, created_ms: Date.now(), tab: "gone" };
            localStorage["chatserver.unsent.large-answer"] = JSON.stringify(unsent);
        }""",
        answer(echo).get_attribute("data-message-id"),
    )
    echo.reload()
    await_end(echo, "failed")
    expect(answer(echo).get_by_test_id("error-code")).to_have_text("content_too_large")
    expect(answer(echo).get_by_test_id("retry")).to_have_count(0)
    ask(echo, "second")
    await_end(echo)
    assert prose(echo) == "second"


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a system whose model reads little at once."""
    folder = tmp_path_factory.mktemp("small")
    with running_system(folder, context_tokens=CONTEXT, cache_gib=0.5, slots=2) as system:
        system.wait_for_worker(system.start("workers", engine="openvino"), 120)
        yield system.web()


@pytest.mark.model
def test_a_conversation_longer_than_the_context_goes_on_and_shows_where_the_model_begins_to_read(
    browser: Browser, small: str
) -> None:
    with opened(browser, small, MODEL, temperature=0, max_new_tokens=12) as page:
        ask(page, "word " * 3_000)
        await_end(page, "failed")
        problem = answer(page).get_by_test_id("error")
        expect(problem).to_contain_text(f"about 3,000 tokens; this model reads {CONTEXT}")
        expect(page.get_by_test_id("retry")).to_have_count(0)
        for number in range(3):
            ask(page, f"{number}. {PARAGRAPH}")
            await_end(page)
        expect(page.get_by_test_id("context-mark")).to_have_count(0)
        expect(page.get_by_test_id("context")).to_contain_text(f"of {CONTEXT} tokens")
        for number in range(3, 5):
            ask(page, f"{number}. {PARAGRAPH}")
            await_end(page)
        mark = page.get_by_test_id("context-mark")
        expect(mark).to_contain_text("4 earlier messages")
        after = page.locator("[data-testid=context-mark] + [data-testid=message]")
        expect(after).to_contain_text("2. The harbour master")
        page.reload()
        expect(mark).to_contain_text("4 earlier messages")
        page.get_by_test_id("new-conversation").click()
        expect(mark).to_have_count(0)
