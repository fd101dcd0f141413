"""axe-core on every page, in a real Chromium: in light and dark, with what a page shows only at times."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from services.accounts.accounts import Accounts
from services.accounts.api_keys import ApiKeys
from services.database.database import Database
from services.places import RECIPES_DIR, ROOT
from services.settings import load_settings
from tests.end_to_end.admin_page import PASSWORD, ask_for, give_up, sign_in
from tests.end_to_end.chat_page import LONG_MS, answer, ask, await_end
from tests.end_to_end.system import System, running_system
from tests.end_to_end.test_job_page import Cleaner, state
from tests.end_to_end.test_train_page import Trainer

pytestmark = pytest.mark.browser

AXE = ROOT / "webapp" / "frontend" / "node_modules" / "axe-core" / "axe.min.js"
OPTIONS = {
    "light": {"rules": {"label-content-name-mismatch": {"enabled": True}}},  # it is off as experimental
    "dark": {"runOnly": ["color-contrast", "link-in-text-block"]},  # only colours differ
}
# In the next frame what draws by itself has heard of the theme. What has no fault is neither kept nor sent.
RUN = """async (options) => {
    await new Promise(requestAnimationFrame);
    const found = await axe.run(document, {...options, resultTypes: ['violations'], preload: false});
    return found.violations.flatMap((rule) =>
        rule.nodes.map((node) => `${rule.impact} ${rule.id}: ${node.html.slice(0, 160)}`));
}"""
RICH = (
    "# Head\n\nText with `code` and [a link](https://example.org).\n\n```python\nprint(1)\n```\n\n```python\nprint(2)\n```"
    "\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\n- one\n- two\n\n" + r"\(x^2\) and \[\frac{a}{b}\] and \[\sqrt{2}\]"
)


@pytest.fixture(scope="module")
def accessible(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    with running_system(tmp_path_factory.mktemp("accessible")) as system:
        system.echo_worker("--rate", "50", "--chunk", "64")
        yield system


@pytest.fixture(scope="module")
def address(accessible: System) -> str:
    return accessible.web()


@pytest.fixture(scope="module")
def accounts_address(accessible: System) -> str:
    """A web process whose users sign in, with one administrator."""
    address = accessible.web(accounts="on")
    Accounts(Database.of(load_settings(accessible.environment))).users.create("root", PASSWORD, role="admin")
    return address


@pytest.fixture(params=["desktop", pytest.param("phone", marks=pytest.mark.slow)])
def page(request: pytest.FixtureRequest, browser: Browser) -> Iterator[Page]:
    phone = request.param == "phone"
    context = browser.new_context(
        viewport={"width": 390, "height": 844} if phone else {"width": 1280, "height": 900}, reduced_motion="reduce"
    )
    yield context.new_page()
    context.close()


def faults(page: Page) -> list[str]:
    """What axe-core finds in each theme, one line for each element. The page goes on in the light one."""
    if not page.evaluate("'axe' in window"):
        page.evaluate(AXE.read_text("utf-8"))
    found: list[str] = []
    for theme in ("dark", "light"):
        page.emulate_media(color_scheme=theme)
        found += [f"{theme}: {fault}" for fault in page.evaluate(RUN, OPTIONS[theme])]
    return found


DIM = """<!doctype html><html lang="en"><title>Dim</title><style>
    :root { color-scheme: light dark } main { background: light-dark(#fff, #000) }
</style><main><h1 style="color: #777">Seen</h1>
<p style="color: #eee">White</p><p style="color: #111">Black</p></main>"""


def test_a_fault_of_one_theme_is_told_with_its_name(page: Page) -> None:
    page.set_content(DIM)
    rule = "serious color-contrast"
    assert faults(page) == [
        f'dark: {rule}: <p style="color: #111">Black</p>',
        f'light: {rule}: <p style="color: #eee">White</p>',
    ]


def test_the_chat_page_has_no_faults(page: Page, address: str) -> None:
    page.goto(address)
    expect(page.get_by_test_id("model")).to_have_value("echo")
    assert faults(page) == []
    attached = {"name": "notes.txt", "mimeType": "text/plain", "buffer": b"first\nsecond"}
    page.get_by_test_id("attach-files").set_input_files(attached)
    assert faults(page) == []
    ask(page, RICH)
    await_end(page)
    ask(page, RICH)
    await_end(page)
    expect(answer(page).locator(".katex").first).to_be_visible()
    assert faults(page) == []
    page.get_by_test_id("edit").first.click()
    assert faults(page) == []


def test_the_dialogs_of_the_chat_page_have_no_faults(page: Page, address: str) -> None:
    page.goto(address)
    expect(page.get_by_test_id("model")).to_have_value("echo")
    page.get_by_test_id("settings").click()
    assert faults(page) == []
    page.keyboard.press("Escape")
    page.keyboard.press("Escape")
    page.keyboard.press("?")
    expect(page.get_by_test_id("shortcuts-panel")).to_be_visible()
    assert faults(page) == []
    page.keyboard.press("Escape")
    attached = {"name": "notes.txt", "mimeType": "text/plain", "buffer": b"line\n" * 200}
    page.get_by_test_id("attach-files").set_input_files(attached)
    page.get_by_test_id("attachment-view").click()
    assert faults(page) == []


def show_sidebar(page: Page) -> None:
    if page.get_by_test_id("menu").get_attribute("aria-expanded") == "false":
        page.get_by_test_id("menu").click()


def test_versions_search_and_the_menu_of_a_conversation_have_no_faults(page: Page, address: str) -> None:
    page.goto(address)
    expect(page.get_by_test_id("model")).to_have_value("echo")
    ask(page, "the heron")
    await_end(page)
    page.get_by_test_id("regenerate").click()
    await_end(page)
    expect(page.get_by_test_id("version")).to_have_text("2/2")
    page.get_by_test_id("judge").click()
    expect(page.get_by_test_id("judgement-panel")).to_be_visible()
    assert faults(page) == []
    page.keyboard.press("Escape")
    show_sidebar(page)
    page.get_by_test_id("search").fill("heron")
    expect(page.get_by_test_id("result").first).to_be_visible()
    assert faults(page) == []
    page.get_by_test_id("search").fill("")
    page.get_by_test_id("more").click()
    assert faults(page) == []
    page.get_by_test_id("delete").click()
    expect(page.get_by_test_id("toast")).to_be_visible()
    assert faults(page) == []


def test_the_dialogs_of_a_conversation_and_a_shared_one_have_no_faults(page: Page, address: str) -> None:
    page.goto(address)
    expect(page.get_by_test_id("model")).to_have_value("echo")
    ask(page, RICH)
    await_end(page)
    for action, panel in (("move", "move-panel"), ("export", "export-panel"), ("share", "share-panel")):
        show_sidebar(page)
        page.get_by_test_id("more").click()
        page.get_by_test_id(action).click()
        expect(page.get_by_test_id(panel)).to_be_visible()
        assert faults(page) == [], action
        if action != "share":
            page.keyboard.press("Escape")
    page.get_by_test_id("share-make").click()
    expect(page.get_by_test_id("share-link")).to_be_visible()
    assert faults(page) == []
    page.goto(page.get_by_test_id("share-link").input_value())
    expect(page.locator("[data-role=assistant] .katex").first).to_be_visible()
    assert faults(page) == []


KEPT = """() => localStorage.setItem('chatserver.conversation.c', JSON.stringify({
    id: 'c', title: 'Failed', model: 'echo', system: '', updated_ms: 1, messages: [
        {id: 'q', role: 'user', content: 'why?', state: 'finished', created_ms: 1},
        {id: 'a', role: 'assistant', content: 'half', state: 'failed', created_ms: 1,
         error: {code: 'internal', message: 'It broke.'}},
    ]}))"""
"""A conversation as earlier pages kept it in the browser."""


def test_a_refused_message_and_a_failed_answer_have_no_faults(page: Page, address: str) -> None:
    page.goto(address)
    page.evaluate(KEPT)
    page.reload()
    show_sidebar(page)
    page.get_by_test_id("move-kept").click()
    page.get_by_test_id("conversation").locator(".open").click()
    expect(page.get_by_test_id("retry")).to_be_visible()
    expect(page.get_by_test_id("model")).to_have_value("echo")
    page.get_by_test_id("input").fill("x" * 250_000)
    page.get_by_test_id("send").click()
    expect(page.get_by_test_id("refusal")).to_be_visible()
    assert faults(page) == []


def test_the_forms_of_jobs_have_no_faults(page: Page, address: str, accessible: System) -> None:
    Trainer(accessible).cleaned()
    page.goto(f"{address}/jobs")
    expect(page.get_by_test_id("recipes")).to_have_value("vicuna.yaml")
    assert faults(page) == []
    page.get_by_test_id("submit").click()
    expect(page.get_by_test_id("form-problem")).not_to_be_empty()
    assert faults(page) == []
    page.get_by_test_id("tab-train").click()
    expect(page.get_by_test_id("train-preset")).not_to_have_value("")
    page.get_by_test_id("train-on").select_option("sky")
    assert faults(page) == []


def test_the_pages_of_jobs_have_no_faults(page: Page, address: str, accessible: System) -> None:
    trainer, cleaner = Trainer(accessible), Cleaner(Trainer(accessible).jobs)
    number = len(trainer.jobs.list())
    cleaning, training = f"cleaning{number}", f"training{number}"
    recipe = (RECIPES_DIR / "vicuna.yaml").read_text("utf-8")
    trainer.jobs.submit(cleaning, "clean", "July logs", {"out": "/nowhere", "inputs": ["a.json"], "recipe": recipe})
    cleaner.begins(cleaning)
    cleaner.half_done(cleaning)
    trainer.running(training)
    for path, shown in ((cleaning, "steps"), (trainer.cleaned(), "job-name"), (training, "figures"), ("none", "gone")):
        page.goto(f"{address}/jobs/{path}")
        expect(page.get_by_test_id(shown)).to_be_visible()
        assert faults(page) == [], path
    trainer.jobs.failed(cleaning, "it broke\nTraceback: here")
    page.goto(f"{address}/jobs/{cleaning}")
    state(page, "Failed")
    assert faults(page) == []
    page.get_by_test_id("remove").click()
    expect(page.get_by_test_id("confirm-panel")).to_be_visible()
    assert faults(page) == []


def test_the_admin_page_has_no_faults(page: Page, address: str, accessible: System) -> None:
    number = len(accessible.redis.keys("*:state"))
    page.goto(f"{address}/admin")
    expect(page.get_by_test_id("storage").get_by_role("table")).to_be_visible()
    assert faults(page) == []
    give_up(accessible, f"dead-{number}")
    give_up(accessible, f"dead-{number}-too")
    ask_for(accessible, f"waits-{number}", model="lost")
    ApiKeys(accessible.redis, accessible.keys).create(f"webui-{number}", "ann")
    page.reload()
    expect(page.get_by_test_id("retry-all")).to_be_visible()
    expect(page.get_by_role("button", name=f"Revoke the key webui-{number} of ann")).to_be_visible()
    assert faults(page) == []
    page.get_by_role("button", name=f"Cancel the request waits-{number}").click()
    expect(page.get_by_test_id("confirm-panel")).to_be_visible()
    assert faults(page) == []


def test_the_admin_page_of_an_installation_with_accounts_has_no_faults(
    page: Page, accounts_address: str, accessible: System
) -> None:
    sign_in(page, f"{accounts_address}/admin")
    page.get_by_test_id("invite").click(timeout=LONG_MS)
    expect(page.get_by_test_id("invitation-address")).to_contain_text("/sign-up/")
    page.get_by_role("button", name="Make a user of root").click()
    expect(page.get_by_test_id("problem")).to_be_visible()
    assert faults(page) == []


def test_the_pages_of_accounts_have_no_faults(page: Page, accounts_address: str, accessible: System) -> None:
    accounts = Accounts(Database.of(load_settings(accessible.environment)))
    name = f"guest{len(accounts.users.list())}"
    page.goto(f"{accounts_address}/sign-up/{accounts.invitations.invite('root')}")
    assert faults(page) == []
    page.get_by_test_id("name").fill("root")
    page.get_by_test_id("password").fill(PASSWORD)
    page.get_by_test_id("sign-up").click()
    expect(page.get_by_test_id("problem")).to_contain_text("is in use")
    assert faults(page) == []
    page.goto(f"{accounts_address}/sign-up/no-such-link")
    expect(page.locator("h1")).to_have_text("This link is over")
    assert faults(page) == []
    accounts.users.create(name, PASSWORD)
    page.goto(f"{accounts_address}/sign-in")
    assert faults(page) == []
    page.get_by_test_id("name").fill(name)
    page.get_by_test_id("password").fill("not the password")
    page.get_by_test_id("sign-in").click()
    expect(page.get_by_test_id("problem")).to_be_visible()
    assert faults(page) == []
    sign_in(page, f"{accounts_address}/account", name)
    assert faults(page) == []
    page.get_by_test_id("key-name").fill("laptop")
    page.get_by_test_id("create-key").click()
    expect(page.get_by_test_id("new-key")).to_be_visible()
    assert faults(page) == []
    page.get_by_test_id("old").fill("not the password")
    page.get_by_test_id("password").fill(PASSWORD)
    page.get_by_test_id("change-password").click()
    expect(page.get_by_test_id("problem")).to_be_visible()
    assert faults(page) == []


def test_the_page_for_strangers_has_no_faults(page: Page, address: str) -> None:
    page.set_extra_http_headers({"X-Forwarded-For": "203.0.113.7"})
    page.goto(f"{address}/jobs")
    expect(page.locator("h1")).to_have_text("Not from here")
    assert faults(page) == []
