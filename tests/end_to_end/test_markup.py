"""Markup in what people and models write is shown and never run, in a real Chromium under the pages' own policy.

Each piece of the corpus would set a flag on `window` if it ran. The pieces are plain ways to write a script, made for
this test; none is meant to get past a check of other people's software.
"""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import BrowserContext, Page, expect

from services.conversations.exports import FORMAT, VERSION
from services.jobs.jobs import Jobs
from services.jobs.signature import job_key
from services.serving.registry import WorkerInfo
from services.settings import load_settings
from tests.end_to_end.admin_page import give_up
from tests.end_to_end.chat_page import answer, ask, await_end, choose
from tests.end_to_end.system import System, running_system

pytestmark = pytest.mark.browser

SET = "window.flagged=1"
CORPUS = (
    f"<script>{SET}</script>",
    f'<img src="no-such-image" onerror="{SET}">',
    f'<svg onload="{SET}"></svg>',
    f'<details open ontoggle="{SET}"><summary>s</summary></details>',
    f'<iframe srcdoc="<script>parent.{SET}</script>"></iframe>',
    f'<a href="javascript:{SET}">a link</a>',
    f"[a link](javascript:{SET})",
    f'<input autofocus onfocus="{SET}">',
    f'<style onload="{SET}"></style>',
    f"\\(\\href{{javascript:{SET}}}{{x}}\\)",
    f'"><img src="no-such-image" onerror="{SET}">',
    f"{{{{ {SET} }}}}",
)
TEXT = "\n\n".join(CORPUS)
# Whether there is a flag, once an image has failed that was asked for after all of the corpus.
FAILED_IMAGE = """() => new Promise((resolve) => {
    const image = new Image();
    image.onerror = () => resolve('flagged' in window);
    image.src = '/no-such-image-either';
})"""


@pytest.fixture(scope="module")
def markup_system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    with running_system(tmp_path_factory.mktemp("markup")) as system:
        system.echo_worker("--rate", "50", "--chunk", "128")
        yield system


@pytest.fixture(scope="module")
def address(markup_system: System) -> str:
    return markup_system.web()


@pytest.fixture
def page(browser_context: BrowserContext) -> Page:
    return browser_context.new_page()


def flagged(page: Page) -> bool:
    """Whether anything ran, also after every link was followed."""
    for link in page.locator("a[href^='javascript']").all():
        link.click(force=True)
    return bool(page.evaluate(FAILED_IMAGE))


def test_the_flag_is_seen_where_markup_does_run(page: Page) -> None:
    """Without a policy, a page that has the corpus as it stands is caught."""
    page.route("**/no-such-*", lambda route: route.abort())
    page.route("**/bare", lambda route: route.fulfill(body=TEXT, content_type="text/html"))
    page.goto("http://127.0.0.1:1/bare")
    assert flagged(page)


def test_neither_a_question_nor_its_answer_runs(page: Page, address: str) -> None:
    page.goto(address)
    expect(page.get_by_test_id("model")).to_have_value("echo")
    ask(page, TEXT)
    await_end(page)
    expect(answer(page)).to_contain_text("a link")
    assert not flagged(page)
    page.reload()
    expect(answer(page)).to_contain_text("a link")
    assert not flagged(page)


def test_no_single_answer_runs(page: Page, address: str) -> None:
    """One that comes alone is the title of its conversation, too."""
    page.goto(address)
    expect(page.get_by_test_id("model")).to_have_value("echo")
    for markup in CORPUS:
        page.get_by_test_id("new-conversation").click()
        ask(page, markup)
        await_end(page)
        assert not flagged(page), markup


def test_the_name_of_an_attached_file_does_not_run(page: Page, address: str) -> None:
    page.goto(address)
    expect(page.get_by_test_id("model")).to_have_value("echo")
    files = [
        {"name": f"{number} {markup}.txt".replace("/", "|"), "mimeType": "text/plain", "buffer": TEXT.encode()}
        for number, markup in enumerate(CORPUS[:4])
    ]
    page.get_by_test_id("attach-files").set_input_files(files)  # type: ignore[arg-type]
    expect(page.get_by_test_id("attachment-view")).to_have_count(4)
    page.get_by_test_id("attachment-view").first.click()
    assert not flagged(page)


@pytest.mark.parametrize("markup", [CORPUS[0], *(pytest.param(each, marks=pytest.mark.slow) for each in CORPUS[1:])])
def test_neither_a_title_nor_a_folder_runs(page: Page, address: str, markup: str) -> None:
    """In the list, the search, every dialog that names the conversation, and what a stranger sees of it."""
    page.goto(address)
    expect(page.get_by_test_id("model")).to_have_value("echo")
    ask(page, "plain words")
    await_end(page)
    choose(page, "rename")
    page.get_by_test_id("rename-input").fill(markup[:120])
    page.get_by_test_id("rename-input").press("Enter")
    item = page.get_by_test_id("conversation")
    expect(item).to_contain_text(markup[:20])
    choose(page, "move")
    page.get_by_test_id("move-folder").fill(markup[:60])
    page.get_by_test_id("move-save").click()
    expect(page.get_by_test_id("folder").locator("option")).to_have_count(2)
    assert not flagged(page)
    page.get_by_test_id("search").fill("window")
    expect(page.get_by_test_id("search-words")).not_to_be_empty()
    assert not flagged(page)
    page.get_by_test_id("search").fill("")
    for action in ("move", "export"):
        choose(page, action)
        assert not flagged(page)
        page.keyboard.press("Escape")
    choose(page, "share")
    page.get_by_test_id("share-make").click()
    expect(page.get_by_test_id("share-link")).not_to_have_value("")
    page.goto(page.get_by_test_id("share-link").input_value())
    expect(page.get_by_test_id("shared-title")).to_contain_text(markup[:20])
    assert not flagged(page)


def imported(number: int, markup: str) -> dict[str, Any]:
    """A conversation of a file, with the markup wherever the file has words."""
    told = {"content": markup, "created_ms": 1}
    failed = {"reasoning": markup, "state": "failed", "code": "internal", "error": markup}
    return {
        "id": f"imported-{number}",
        "title": markup,
        "folder": markup[:60],
        "system": markup,
        "created_ms": number,
        "updated_ms": number,
        "current_id": f"answer-{number}",
        "messages": [
            {"id": f"question-{number}", "parent_id": None, "role": "user", **told},
            {"id": f"answer-{number}", "parent_id": f"question-{number}", "role": "assistant", **told, **failed},
        ],
    }


def test_nothing_of_an_imported_file_runs(page: Page, address: str) -> None:
    """Neither what stands in it nor its name."""
    page.goto(address)
    expect(page.get_by_test_id("model")).to_have_value("echo")
    conversations = [imported(number, markup) for number, markup in enumerate(CORPUS)]
    raw = json.dumps({"format": FORMAT, "version": VERSION, "conversations": conversations}).encode()
    name = f"{TEXT}.json".replace("/", "|")
    for buffer, told in ((raw, f"{len(CORPUS)} conversations imported"), (b"no json", "was not imported")):
        file = {"name": name, "mimeType": "application/json", "buffer": buffer}
        page.get_by_test_id("import-file").set_input_files(file)  # type: ignore[arg-type]
        expect(page.get_by_test_id("toast")).to_contain_text(told)
        assert not flagged(page)
    items = page.get_by_test_id("conversation")
    expect(items).to_have_count(len(CORPUS))
    expect(page.get_by_test_id("folder").locator("option")).to_have_count(len(CORPUS) + 1)
    for item in items.all():
        item.locator(".open").click()
        expect(item.locator(".open")).to_have_attribute("aria-current", "page")
        expect(answer(page)).to_be_visible()
        assert not flagged(page)


def test_no_name_on_the_admin_page_runs(page: Page, address: str, markup_system: System) -> None:
    for number, markup in enumerate(CORPUS):
        worker = WorkerInfo(f"w{number}", markup, markup, 4, 0, 0.0, 9, markup, 1, 0.0, version=markup)
        markup_system.registry.announce(worker)
        markup_system.redis.expire(markup_system.keys.worker(f"w{number}"), 60)
        give_up(markup_system, f"dead-{number}", reason=markup)
    page.goto(f"{address}/admin")
    expect(page.get_by_test_id("workers")).to_contain_text(CORPUS[0])
    expect(page.get_by_test_id("dead")).to_contain_text(CORPUS[1])
    assert not flagged(page)


def test_no_name_or_error_of_a_job_runs(page: Page, address: str, markup_system: System) -> None:
    jobs = Jobs(markup_system.redis, markup_system.keys, job_key(load_settings(markup_system.environment)))
    spec = {"out": TEXT, "inputs": [TEXT], "recipe": json.dumps(TEXT), "labels": [TEXT]}
    jobs.submit("j1", "clean", TEXT[:120], spec)
    jobs.log("j1", TEXT.replace("\n", " "))
    jobs.started("j1")
    jobs.failed("j1", TEXT)
    for path in ("/jobs", "/jobs/j1"):
        page.goto(f"{address}{path}")
        expect(page.get_by_test_id("job-item")).to_contain_text("<script>")
        assert not flagged(page)
