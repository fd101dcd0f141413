"""The arena in a real Chromium: a battle is blind in every byte that the browser gets, until the vote."""

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, Route, expect

from tests.end_to_end.system import System, running_system
from tests.end_to_end.test_accessibility import faults

pytestmark = pytest.mark.browser

MODELS = ("veiled-one", "veiled-two")
TELLING = re.compile(r"veiled-|usage|context_tokens|prompt_tokens|first_token_ms|temperature")


@pytest.fixture(scope="module")
def arena(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    with running_system(tmp_path_factory.mktemp("arena")) as system:
        for model, rate in zip(MODELS, ("40", "20"), strict=True):
            system.echo_worker("--model", model, "--rate", rate, "--chunk", "40")
        yield system


@pytest.fixture(scope="module")
def address(arena: System) -> str:
    return arena.web()


class Wire:
    """All that a page was sent by HTTP and over its socket, but for the list of models to choose from."""

    def __init__(self, page: Page) -> None:
        self.heard: list[str] = []
        page.route("**/api/**", self._pass_on)
        page.on("websocket", lambda socket: socket.on("framereceived", lambda frame: self.heard.append(str(frame))))

    def _pass_on(self, route: Route) -> None:
        answer = route.fetch()
        if not route.request.url.endswith("/api/arena/models"):
            self.heard.append(answer.text())
        route.fulfill(response=answer)

    def telling(self) -> list[str]:
        return [each[:200] for each in self.heard if TELLING.search(each)]


@pytest.fixture
def page(browser: Browser, address: str) -> Iterator[Page]:
    context = browser.new_context(viewport={"width": 1280, "height": 900}, reduced_motion="reduce")
    page = context.new_page()
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("console", lambda message: problems.append(message.text) if "Content Security" in message.text else None)
    page.goto(address)  # the first visit makes the cookie
    yield page
    assert problems == []
    context.close()


def both_ready(page: Page) -> None:
    expect(page.get_by_test_id("vote-left")).to_be_visible()


def test_a_battle_is_blind_until_the_vote_and_counts_after_it(page: Page, address: str) -> None:
    wire = Wire(page)
    page.goto(f"{address}/arena")
    page.get_by_test_id("question").fill("A sentence that two models repeat, **each** for itself. " * 4)
    page.get_by_test_id("ask").click()
    both_ready(page)
    assert faults(page) == []
    page.reload()
    both_ready(page)
    for side in ("left", "right"):
        expect(page.get_by_test_id(f"side-{side}")).to_contain_text("each for itself")
    page.get_by_test_id("question").fill("And once more.")
    page.get_by_test_id("ask").click()
    expect(page.get_by_test_id("round")).to_have_count(2)
    both_ready(page)
    assert any("battle-" in each for each in wire.heard) and wire.telling() == []
    page.get_by_test_id("vote-right").click()
    expect(page.get_by_test_id("verdict-words")).to_contain_text("B is better")
    told = page.get_by_test_id("side-name").all_inner_texts()
    assert {each.partition(": ")[2] for each in told} == set(MODELS)
    assert faults(page) == []
    page.get_by_test_id("tab-board").click()
    expect(page.get_by_test_id("standings").locator("tbody tr")).to_have_count(2)  # it loads pandas
    expect(page.get_by_test_id("plot")).to_be_visible()
    expect(page.get_by_test_id("improve-pairs")).to_contain_text("0 pairs")
    expect(page.get_by_test_id("improve")).to_be_disabled()
    assert faults(page) == []


def test_markup_in_a_question_and_its_answers_is_text(page: Page, address: str) -> None:
    page.goto(f"{address}/arena")
    page.get_by_test_id("question").fill("<img src=x onerror=\"window.flag=1\"><b onclick='window.flag=1'>x</b>")
    page.get_by_test_id("ask").click()
    both_ready(page)
    page.get_by_test_id("vote-both_bad").click()
    expect(page.get_by_test_id("verdict-words")).to_contain_text("Both are bad")
    assert page.evaluate("window.flag") is None


def test_a_leak_would_be_noticed(page: Page, address: str) -> None:
    """The regular expression and the listening are right: an ordinary answer tells its model and its usage."""
    wire = Wire(page)
    page.goto(address)
    expect(page.get_by_test_id("model")).to_have_value(re.compile("veiled-"))
    page.get_by_test_id("input").fill("Hello.")
    page.get_by_test_id("send").click()
    expect(page.locator("[data-testid=message][data-role=assistant]")).to_have_attribute("data-state", "finished")
    assert any("usage" in each for each in wire.telling())
