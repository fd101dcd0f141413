"""A trained model in the page: offered when it is wanted, loaded by a standby worker, picked by its address."""

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from services.serving.trained_models import Claim, TrainedModel, TrainedModels
from tests.end_to_end.system import System
from tests.services.serving.test_trained_models import written

pytestmark = pytest.mark.browser


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    yield context.new_page()
    context.close()


def test_a_trained_model_is_offered_from_when_it_is_wanted_until_it_is_not(
    system: System, chat_url: str, page: Page
) -> None:
    trained = TrainedModels(system.redis, system.keys)
    folder = written(system.folder / "july")
    (folder / "slow").touch()
    trained.register(TrainedModel("july", str(folder), "opt", "j1", 0.0))
    page.goto(chat_url)
    picker = page.get_by_test_id("model")
    expect(picker).to_have_value("echo")
    assert picker.locator("option").all_inner_texts() == ["echo"]

    trained.serve("july")
    system.start("tests.workers.standby_process")
    page.goto(f"{chat_url}/?model=july")
    expect(picker).to_have_value("july")
    expect(page).to_have_url(re.compile(r"/#/$"))
    expect(picker.locator("option[value=july]")).to_have_text("july (loading)")
    expect(page.locator("#no-worker")).to_have_text(
        "A worker is loading july. A question waits until the model is loaded."
    )
    page.get_by_test_id("input").fill("Are you there?")
    page.get_by_test_id("send").click()
    answer = page.locator("[data-testid=message][data-role=assistant]").last
    expect(answer).to_have_attribute("data-state", "queued")

    (folder / "slow").unlink()
    expect(answer).to_have_attribute("data-state", "finished")
    expect(answer.locator("> .prose")).to_have_text("Are you there?")
    expect(picker.locator("option[value=july]")).to_have_text("july")

    trained.stop_serving("july")
    page.goto(chat_url)
    expect(picker.locator("option")).to_have_text(["echo"])


def test_a_wanted_model_that_nobody_loads_says_so(system: System, chat_url: str, page: Page) -> None:
    trained = TrainedModels(system.redis, system.keys)
    trained.register(TrainedModel("august", "s3://bucket/august/model", "opt", "j2", 0.0))
    trained.serve("august")
    page.goto(f"{chat_url}/?model=august")
    option = page.get_by_test_id("model").locator("option[value=august]")
    expect(option).to_have_text("august (waiting for a worker)")
    trained.keep_claim(Claim("august", "elsewhere"))
    expect(option).to_have_text("august (loading)")
