"""The job pages in a real Chromium, on a real web process and a real Redis; this file plays those who clean.

`Cleaner` says of a job what `pipelines` says while it works, step by step, so that each state can be looked at.
Build the page first: `npm ci && npm run build` in webapp/frontend.
"""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, Route, expect

from services.jobs.jobs import Job, Jobs
from services.places import SAMPLES_DIR
from tests.end_to_end.chat_page import LONG_MS
from tests.end_to_end.system import System, running_system, wait_until
from tests.webapp.server.attacker import exchange

pytestmark = pytest.mark.browser

REPORT = """<!doctype html><html><head><title>Cleaning report</title><style>h1 { color: rgb(1, 2, 3) }</style></head>
<body><h1>Report</h1><script>document.title = "a script ran"</script></body></html>"""


@pytest.fixture(scope="module")
def jobs_system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    with running_system(tmp_path_factory.mktemp("jobs")) as system:
        yield system


@pytest.fixture(scope="module")
def address(jobs_system: System) -> str:
    return jobs_system.web()


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    made = browser.new_context(viewport={"width": 1280, "height": 860})
    yield made
    made.close()


@pytest.fixture
def page(context: BrowserContext, address: str) -> Iterator[Page]:
    """The form, ready; an uncaught error or a CSP violation in it fails the test."""
    opened = context.new_page()
    problems: list[str] = []
    opened.on("pageerror", lambda error: problems.append(str(error)))
    opened.on("console", lambda message: problems.append(message.text) if "Content Security" in message.text else None)
    opened.goto(f"{address}/jobs")
    expect(opened.get_by_test_id("recipes")).to_have_value("vicuna.yaml")
    yield opened
    assert problems == []


@pytest.fixture
def cleaner(jobs_system: System) -> "Cleaner":
    return Cleaner(Jobs(jobs_system.redis, jobs_system.keys))


class Cleaner:
    """Does no work, but says what those say who do."""

    def __init__(self, jobs: Jobs) -> None:
        self.jobs = jobs

    def newest(self) -> Job:
        return self.jobs.list(1)[0]

    def begins(self, jid: str, num_records: int = 1000) -> None:
        assert self.jobs.started(jid)
        counts = _counts(num_records, num_records - 3, {"not_json": 3})
        self.jobs.note(jid, "read", {"state": "done", "steps": {"read": counts}})
        self.jobs.planned(jid, 4, 1)
        self.jobs.log(jid, f"read: {num_records:,} records in 2 shards")

    def half_done(self, jid: str) -> None:
        steps = {
            "select": _counts(600, 590, {"plugins": 10}),
            "roles": _counts(590, 540, {"too_short": 41, "same_role_twice": 9}),
            "html_to_markdown": _counts(540, 540, {}, changed={"converted": 1022}),
            "repair_unicode": _counts(540, 540, {}, changed={"repaired": 17}),
            "error_messages": _counts(540, 538, {"only_errors": 2}, cut={"rate_limit": 12}),
        }
        self.jobs.note(jid, "shard-0-00000", {"state": "done", "records": 600, "of": 600, "steps": steps})
        self.jobs.log(jid, "shard-0-00000: 600 records, 538 left")

    def ends(self, jid: str) -> None:
        out = Path(self.jobs.get(jid).spec["out"])
        (out / "data.jsonl").write_text(json.dumps({"id": "a"}) + "\n")
        (out / "rejects.jsonl").write_text("{}\n" * 50)
        (out / "report.json").write_text("{}")
        (out / "report.html").write_text(REPORT)
        assert self.jobs.finished(jid)


def _counts(
    records_in: int, records_out: int, rejected: dict[str, int], *, cut: dict[str, int] | None = None,
    changed: dict[str, int] | None = None,
) -> dict[str, object]:  # fmt: skip
    counts = {"records_in": records_in, "records_out": records_out}
    return {**counts, "rejected": rejected, "cut": cut or {}, "changed": changed or {}}


def choose(page: Page, *names: str, size: int = 40) -> None:
    page.get_by_test_id("files").set_input_files(
        [{"name": name, "mimeType": "application/json", "buffer": b"x" * size} for name in names]
    )
    expect(page.get_by_test_id("chosen-file").filter(has_text=names[-1])).to_be_visible()


def submit(page: Page, cleaner: Cleaner, *names: str, size: int = 40) -> str:
    choose(page, *(names or ("talk.json",)), size=size)
    page.get_by_test_id("submit").click()
    page.wait_for_url("**/jobs/*", timeout=LONG_MS)
    return page.url.rsplit("/", 1)[1]


def state(page: Page, word: str) -> None:
    expect(page.get_by_test_id("job-state")).to_have_text(word)


def test_one_click_cleans_a_sample(page: Page, cleaner: Cleaner) -> None:
    page.get_by_test_id("try-sample").click()
    page.wait_for_url("**/jobs/*", timeout=LONG_MS)
    job = cleaner.jobs.get(page.url.rsplit("/", 1)[1])
    assert job.spec["labels"] == ["sharegpt_html.json"] and job.spec["recipe_name"] == "vicuna.yaml"
    assert Path(job.spec["inputs"][0]).read_bytes() == (SAMPLES_DIR / "sharegpt_html.json").read_bytes()


def test_a_job_from_its_files_to_its_data(page: Page, cleaner: Cleaner) -> None:
    page.get_by_test_id("name").fill("July <b>logs</b>")
    jid = submit(page, cleaner, "talk.json", "more.jsonl.gz")
    job = cleaner.jobs.get(jid)
    assert job.spec["labels"] == ["talk.json", "more.jsonl.gz"] and job.spec["recipe_name"] == "vicuna.yaml"
    assert [Path(path).read_bytes() for path in job.spec["inputs"]] == [b"x" * 40] * 2
    expect(page.get_by_test_id("job-name")).to_have_text("July <b>logs</b>")
    state(page, "Waiting")
    cleaner.begins(jid)
    state(page, "Cleaning")
    expect(page.get_by_test_id("status")).to_have_text("July <b>logs</b> is being cleaned")
    cleaner.half_done(jid)
    expect(page.get_by_test_id("overall-text")).to_have_text("50 % · 2 of 4 parts")
    expect(page.get_by_test_id("eta")).to_contain_text("left")
    roles = page.locator("[data-step=roles]")
    expect(roles).to_contain_text("540 kept, 50 dropped")
    expect(roles.locator(".chip").first).to_have_text("dropped: too short41")
    expect(page.get_by_test_id("step")).to_have_count(15)
    expect(page.get_by_test_id("log")).to_contain_text("600 records, 538 left")
    cleaner.ends(jid)
    state(page, "Finished")
    with page.expect_download() as download:
        page.get_by_test_id("file-data").click()
    assert download.value.suggested_filename == f"{jid}-data.jsonl"
    assert json.loads(Path(download.value.path()).read_text()) == {"id": "a"}
    expect(page.get_by_test_id("file-validation")).to_have_count(0)


def test_everything_is_there_after_a_reload_and_in_another_tab(page: Page, cleaner: Cleaner) -> None:
    jid = submit(page, cleaner)
    cleaner.begins(jid)
    cleaner.half_done(jid)
    page.reload()
    second = page.context.new_page()
    second.goto(page.url)
    for tab in (page, second):
        expect(tab.get_by_test_id("overall-text")).to_have_text("50 % · 2 of 4 parts")
        expect(tab.get_by_test_id("log").locator(".line")).to_have_count(2)
        expect(tab.locator("[data-step=roles]")).to_contain_text("540 kept, 50 dropped")


def test_the_report_opens_and_runs_nothing(page: Page, cleaner: Cleaner) -> None:
    jid = submit(page, cleaner)
    cleaner.begins(jid)
    cleaner.ends(jid)
    state(page, "Finished")
    with page.context.expect_page() as opened:
        page.get_by_test_id("file-report").click()
    report = opened.value
    expect(report.locator("h1")).to_have_css("color", "rgb(1, 2, 3)")
    assert report.title() == "Cleaning report"


def test_a_wrong_recipe_is_told_at_its_line_before_anything_is_sent(page: Page, cleaner: Cleaner) -> None:
    sent: list[str] = []
    page.on("request", lambda request: sent.append(request.url) if "/api/uploads" in request.url else None)
    choose(page, "talk.json")
    recipe = page.get_by_test_id("recipe")
    recipe.fill("name: mine\nsteps:\n  - roles\n  - qualty\n")
    expect(page.get_by_test_id("recipes")).to_have_value("")
    page.get_by_test_id("submit").click()
    problem = page.get_by_test_id("recipe-problem")
    expect(problem).to_have_text("Line 4: unknown step 'qualty'; did you mean quality?")
    expect(recipe).to_be_focused()
    assert recipe.evaluate("e => e.value.slice(e.selectionStart, e.selectionEnd)") == "  - qualty"
    expect(page.locator("#gutter .wrong")).to_have_text("4")
    assert sent == []
    recipe.fill("name: mine\nsteps:\n  - roles\n  - quality\n")
    expect(problem).to_have_text("")
    page.get_by_test_id("submit").click()
    page.wait_for_url("**/jobs/*", timeout=LONG_MS)
    assert cleaner.newest().spec["recipe_name"] == "mine"


def test_an_upload_goes_on_after_a_lost_connection_and_after_a_reload(
    page: Page, cleaner: Cleaner, tmp_path: Path
) -> None:
    pieces: list[str] = []

    def third_fails(route: Route) -> None:
        pieces.append(route.request.url.rsplit("=", 1)[1])
        if len(pieces) >= 3:
            route.abort()
        else:
            route.continue_()

    page.route("**/api/uploads/*?offset=*", third_fails)
    size = 2_000_000
    path = tmp_path / "big.json"  # a file on disk has the same date when it is chosen again
    path.write_bytes(b"y" * size)
    page.get_by_test_id("files").set_input_files(path)
    page.get_by_test_id("submit").click()
    expect(page.locator("#sending-text")).to_contain_text("The server does not answer.")
    page.on("dialog", lambda dialog: dialog.accept())  # the browser asks whether to leave
    page.reload()
    expect(page.get_by_test_id("recipes")).to_have_value("vicuna.yaml")
    page.unroute("**/api/uploads/*?offset=*")
    offsets: list[str] = []
    page.on(
        "request",
        lambda request: offsets.append(request.url.rsplit("=", 1)[1]) if request.method == "PUT" else None,
    )
    page.get_by_test_id("files").set_input_files(path)
    page.get_by_test_id("submit").click()
    page.wait_for_url("**/jobs/*", timeout=LONG_MS)
    assert offsets == ["1048576", "1572864"]
    assert Path(cleaner.newest().spec["inputs"][0]).read_bytes() == b"y" * size


def test_a_double_click_and_a_lost_answer_make_one_job(page: Page, cleaner: Cleaner) -> None:
    before = len(cleaner.jobs.list())
    lost: list[str] = []

    def answer_is_lost(route: Route) -> None:
        if route.request.method == "POST" and not lost:
            route.fetch()
            lost.append(route.request.url)
            route.abort()
        else:
            route.continue_()

    page.route("**/api/jobs", answer_is_lost)
    choose(page, "talk.json")
    page.get_by_test_id("submit").dblclick()
    page.wait_for_url("**/jobs/*", timeout=LONG_MS)
    assert lost and len(cleaner.jobs.list()) == before + 1


def test_cancel_asks_first_and_the_job_can_go_on(page: Page, cleaner: Cleaner) -> None:
    jid = submit(page, cleaner)
    cleaner.begins(jid)
    state(page, "Cleaning")
    page.get_by_test_id("cancel").click()
    page.keyboard.press("Escape")
    assert not cleaner.jobs.get(jid).cancelling
    page.get_by_test_id("cancel").click()
    page.get_by_test_id("confirm-yes").click()
    state(page, "Cancelling…")
    expect(page.get_by_test_id("cancel")).to_be_disabled()
    cleaner.jobs.cancelled(jid)
    state(page, "Cancelled")
    page.get_by_test_id("again").click()
    state(page, "Waiting")


def test_a_failed_job_tells_why_and_is_removed_with_its_files(page: Page, cleaner: Cleaner) -> None:
    jid = submit(page, cleaner)
    cleaner.begins(jid)
    cleaner.jobs.failed(jid, 'Traceback (most recent call last):\n  File "x.py", line 3\nOSError: the disk is full')
    state(page, "Failed")
    problem = page.get_by_test_id("problem")
    expect(problem.locator("b")).to_have_text("OSError: the disk is full")
    problem.locator("summary").click()
    expect(problem.locator("pre")).to_contain_text('File "x.py", line 3')
    out = Path(cleaner.jobs.get(jid).spec["out"])
    page.get_by_test_id("remove").click()
    page.get_by_test_id("confirm-yes").click()
    page.wait_for_url("**/jobs", timeout=LONG_MS)
    assert not out.exists()
    expect(page.locator(f"[data-job-id='{jid}']")).to_have_count(0)
    page.goto(f"{page.url}/{jid}")
    expect(page.get_by_test_id("gone")).to_be_visible()


def test_the_list_is_newest_first_and_leads_to_each_job(page: Page, cleaner: Cleaner) -> None:
    first = submit(page, cleaner)
    page.get_by_test_id("new-job").click()
    second = submit(page, cleaner)
    cleaner.begins(second)
    cleaner.half_done(second)
    items = page.get_by_test_id("job-item")
    expect(items.first).to_contain_text("Cleaning · 50 % · just now")
    ids = [item.locator("a").get_attribute("data-job-id") for item in items.all()]
    assert ids[:2] == [second, first]
    expect(items.first.locator("a")).to_have_attribute("aria-current", "page")
    items.nth(1).locator("a").click()
    page.wait_for_url(f"**/jobs/{first}")


def test_a_redis_that_is_away_is_told_and_then_forgotten(page: Page, cleaner: Cleaner, jobs_system: System) -> None:
    jid = submit(page, cleaner)
    cleaner.begins(jid)
    state(page, "Cleaning")
    jobs_system.server.stop()
    expect(page.get_by_test_id("away")).to_contain_text("Redis does not answer")
    state(page, "Cleaning")
    jobs_system.server.start()
    wait_until(jobs_system.redis.ping, "Redis")
    expect(page.get_by_test_id("away")).to_be_hidden()


def test_it_works_by_keyboard(page: Page, cleaner: Cleaner) -> None:
    choose(page, "talk.json")
    page.get_by_test_id("name").focus()
    page.keyboard.type("typed")
    page.keyboard.press("Enter")
    page.wait_for_url("**/jobs/*", timeout=LONG_MS)
    cleaner.begins(cleaner.newest().id)
    state(page, "Cleaning")
    page.get_by_test_id("cancel").focus()
    page.keyboard.press("Enter")
    expect(page.get_by_test_id("confirm-no")).to_be_focused()  # the safe answer
    page.keyboard.press("Enter")
    expect(page.get_by_test_id("confirm-panel")).to_be_hidden()
    expect(page.get_by_test_id("cancel")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_test_id("confirm-no")).to_be_focused()
    page.keyboard.press("Tab")
    expect(page.get_by_test_id("confirm-yes")).to_be_focused()
    page.keyboard.press("Enter")
    state(page, "Cancelling…")


def test_every_control_has_a_name(page: Page, cleaner: Cleaner) -> None:
    choose(page, "talk.json")
    nameless = """() => [...document.querySelectorAll('button, a, input, select, textarea, progress')]
        .filter(e => e.offsetParent && !e.getAttribute('aria-label') && !e.textContent.trim() && !e.labels?.length)
        .map(e => e.outerHTML)"""
    assert page.evaluate(nameless) == []
    submit(page, cleaner, "other.json")
    state(page, "Waiting")
    assert page.evaluate(nameless) == []


def test_a_phone_has_no_horizontal_scroll(browser: Browser, address: str, cleaner: Cleaner) -> None:
    context = browser.new_context(viewport={"width": 360, "height": 740}, is_mobile=True, has_touch=True)
    page = context.new_page()
    page.goto(f"{address}/jobs")
    expect(page.get_by_test_id("recipes")).to_have_value("vicuna.yaml")
    width = "document.documentElement.scrollWidth"
    assert page.evaluate(width) <= 360
    sizes = (
        "[...document.querySelectorAll('textarea, input, select')].map(e => parseFloat(getComputedStyle(e).fontSize))"
    )
    assert min(page.evaluate(sizes)) >= 16  # iOS zooms into anything smaller
    jid = submit(page, cleaner, "a_very_long_name_of_a_file_" * 5 + ".json")
    cleaner.begins(jid)
    cleaner.half_done(jid)
    cleaner.jobs.log(jid, "x" * 400)
    expect(page.locator("[data-step=roles]")).to_contain_text("540 kept")
    cleaner.ends(jid)
    state(page, "Finished")
    assert page.evaluate(width) <= 360
    context.close()


def test_the_chat_page_leads_here(page: Page, address: str) -> None:
    page.goto(address)
    page.get_by_test_id("jobs-link").click()
    expect(page.get_by_test_id("submit")).to_be_visible()


def test_who_comes_by_another_name_is_told_how_to_come(context: BrowserContext, address: str) -> None:
    page = context.new_page()
    page.set_extra_http_headers({"X-Forwarded-For": "10.0.0.1"})
    page.goto(f"{address}/jobs")
    expect(page.locator("h1")).to_have_text("Not from here")
    expect(page.locator("main")).to_contain_text("ssh -L")


def test_the_pipelines_clean_what_the_page_sends(context: BrowserContext, tmp_path: Path) -> None:
    """With the real worker of Celery, of which the other tests have none."""
    talk = [
        {"from": "human", "value": "How do I sort a list in Python?"},
        {"from": "gpt", "value": "<p>Use <code>sorted(x)</code>: it returns a new list.</p>"},
    ]
    sample = tmp_path / "sharegpt.json"
    sample.write_text(json.dumps([{"id": "good", "conversations": talk}, {"id": "bad", "conversations": []}]))
    with running_system(tmp_path / "system") as system:
        address = system.web()
        system.start("pipelines", "worker")
        page = context.new_page()
        page.goto(f"{address}/jobs")
        expect(page.get_by_test_id("recipes")).to_have_value("vicuna.yaml")
        page.get_by_test_id("files").set_input_files(sample)
        page.get_by_test_id("submit").click()
        state(page, "Finished")
        expect(page.get_by_test_id("overall-text")).to_have_text("2 records read, 1 rejected, 1 written")
        with page.expect_download() as download:
            page.get_by_test_id("file-data").click()
        assert "Use `sorted(x)`: it returns a new list." in Path(download.value.path()).read_text()
        with context.expect_page() as opened:
            page.get_by_test_id("file-report").click()
        expect(opened.value.locator("h1")).to_have_text("Cleaning report: vicuna")


@pytest.mark.parametrize(
    "head",
    [
        "GET /api/jobs HTTP/1.1\r\nHost: localhost\r\nHost: evil.example",
        "GET /api/jobs HTTP/1.1\r\nHost: evil.example\r\nHost: localhost",
        "GET http://evil.example/api/jobs HTTP/1.1\r\nHost: evil.example",
        "GET /api/jobs HTTP/1.0\r\nHost: localhost",
        "GET /api/jobs HTTP/1.1\r\nHost: localhost\r\nvia: 1.1 proxy",
        "POST /api/uploads HTTP/1.1\r\nHost: localhost\r\nOrigin: http://localhost\r\nOrigin: http://evil.example\r\n"
        "Content-Type: application/json\r\nContent-Length: 0",
    ],
)
def test_the_real_server_refuses_what_two_servers_may_read_differently(address: str, head: str) -> None:
    answer = exchange(address, f"{head}\r\nConnection: close\r\n\r\n".encode())
    assert answer.split()[1] in (b"400", b"403", b"404"), answer[:200]
    assert b'"jobs"' not in answer
