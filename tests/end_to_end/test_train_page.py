"""The page of a fine-tuning in a real Chromium, on a real web process and a real Redis; this file plays who trains.

`Trainer` says of a job what its dispatch says, so that each state can be looked at.
Build the page first: `npm ci && npm run build` in webapp/frontend.
"""

import json
import math
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, Route, expect

from services.jobs.jobs import Job, Jobs, LogBatch
from services.jobs.previews import Preview, PreviewExample, PreviewResult, Previews
from services.jobs.signature import job_key
from services.jobs.training import read_training
from services.jobs.training_jobs import Place, training_spec
from services.jobs.training_progress import UNIT, TrainingProgress
from services.serving.registry import WorkerInfo
from services.serving.trained_models import TrainedModel, TrainedModels
from services.settings import load_settings
from tests.end_to_end.chat_page import LONG_MS
from tests.end_to_end.system import System, running_system, wait_until
from tests.end_to_end.test_job_page import state

pytestmark = pytest.mark.browser

PLAN = {
    "examples": 1_204, "tokens": 310_400, "supervised_tokens": 122_000, "truncated": 4, "unsupervised": 1, "steps": 400,
    "sequences_per_step": 32, "per_device": 2, "accumulation": 16, "world_size": 1, "attention": "sdpa",
    "attention_reason": "flash attention needs a GPU", "dtype": "float32",
}  # fmt: skip


class Trainer:
    """Trains nothing, but says what those say who do."""

    def __init__(self, system: System) -> None:
        self.system = system
        self.jobs = Jobs(system.redis, system.keys, job_key(load_settings(system.environment)))
        self.trained = TrainedModels(system.redis, system.keys)
        self.previews = Previews(system.redis, system.keys, job_key(load_settings(system.environment)))

    def cleaned(self, jid: str = "cleaned", name: str = "July logs") -> str:
        """A finished cleaning with data."""
        out = self.system.folder / jid
        out.mkdir(exist_ok=True)
        (out / "data.jsonl").write_text('{"id": "a", "conversations": []}\n')
        self.jobs.submit(jid, "clean", name, {"out": str(out), "inputs": [], "recipe": ""})
        self.jobs.started(jid)
        self.jobs.finished(jid)
        return jid

    def submitted(self, jid: str, name: str = "mine", **fields: Any) -> str:
        config = read_training("smollm2-135m", {"name": name, **fields})
        data = self.system.folder / self.cleaned() / "data.jsonl"
        spec = training_spec(config, [str(data)], str(self.system.folder / "trained" / jid), Place())
        self.jobs.submit(jid, "train", name, spec)
        return jid

    def tells(self, jid: str, upto: int, since: int = 0, of: int = 400, **more: Any) -> None:
        """Steps `since` < step ≤ `upto`, each with its point, and the note, as the dispatch tells them."""
        points = [{**point_of(step, of), "step": step} for step in range(since + 1, upto + 1)]
        evals = [{"step": step, "loss": 1.3 + 1.8 * math.exp(-step / 90)} for step in range(50, upto + 1, 50)]
        saved = [
            {"step": step, "time_s": time.time() - 2.0 * (upto - step), "bytes": 1_613_000_000}
            for step in range(100, upto + 1, 100)
        ]
        last = point_of(upto, of)
        progress = TrainingProgress(
            records=upto, of=of, loss=last["loss"], lr=last["lr"], tokens_per_s=last["tokens_per_s"], plan=PLAN,
            eta_s=2.0 * (of - upto), epoch=3 * upto / of, evals=evals, checkpoints=saved[-2:], **more,
        )  # fmt: skip
        cursor = self.jobs.get(jid).cursor
        assert self.jobs.follow(jid, LogBatch(cursor, f"{cursor}.", UNIT, progress.as_note(), points=points))

    def running(self, jid: str, upto: int = 150) -> str:
        self.submitted(jid)
        assert self.jobs.started(jid)
        self.jobs.log(jid, "plan: 400 steps of 32 sequences")
        self.tells(jid, upto, outcome={"state": "running", "seconds": 312, "cost_usd": None})
        return jid

    def finishes(self, jid: str) -> TrainedModel:
        path = str(self.system.folder / "trained" / jid / "model")
        self.tells(jid, 400, 399, outcome={"state": "finished", "seconds": 830}, model=path)
        model = self.trained.register(TrainedModel("mine", path, "smollm2-135m", jid, 1.0))
        assert self.jobs.finished(jid)
        return model

    def loads(self, name: str) -> None:
        """A worker that serves the model, for as long as a presence lasts."""
        self.system.registry.announce(WorkerInfo("w", name, "torch", 4, 0, 0.0, 2048, "here", 1, 0.0))

    def newest(self) -> Job:
        return self.jobs.list(1)[0]


def point_of(step: int, of: int) -> dict[str, float]:
    """A curve as it is: falling, with noise, the learning rate warmed up and then on half a cosine."""
    noise = math.sin(step * 12.9898) * 43758.5453 % 1 - 0.5
    warm = min(1.0, step / (0.03 * of))
    return {
        "loss": 1.2 + 1.9 * math.exp(-step / 80) + 0.35 * noise,
        "lr": 1e-4 * warm * 0.5 * (1 + math.cos(math.pi * step / of)),
        "tokens_per_s": 820 + 60 * noise,
        "epoch": 3 * step / of,
    }


@pytest.fixture(scope="module")
def train_system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    with running_system(tmp_path_factory.mktemp("training")) as system:
        yield system


@pytest.fixture(scope="module")
def address(train_system: System) -> str:
    return train_system.web()


@pytest.fixture
def trainer(train_system: System) -> Trainer:
    return Trainer(train_system)


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    made = browser.new_context(viewport={"width": 1280, "height": 900})
    yield made
    made.close()


@pytest.fixture
def page(context: BrowserContext) -> Iterator[Page]:
    """An uncaught error or a CSP violation in it fails the test."""
    opened = context.new_page()
    problems: list[str] = []
    opened.on("pageerror", lambda error: problems.append(str(error)))
    opened.on("console", lambda message: problems.append(message.text) if "Content Security" in message.text else None)
    yield opened
    assert problems == []


def drawn(page: Page, color: str) -> list[int]:
    """How many pixels of each column of the loss's canvas have a color of the style sheet."""
    canvas = page.get_by_test_id("loss-chart").locator("canvas")
    counts: list[int] = canvas.evaluate(COUNT_PIXELS, color)
    return counts


COUNT_PIXELS = """(canvas, color) => {
    const probe = canvas.parentElement.appendChild(document.createElement('i'))
    probe.style.color = `var(${color})`
    const wanted = getComputedStyle(probe).color.match(/\\d+/g).map(Number)
    probe.remove()
    const {width, height} = canvas
    const pixels = canvas.getContext('2d').getImageData(0, 0, width, height).data
    const isWanted = (at) => pixels[at + 3] > 200 && wanted.every((part, i) => Math.abs(pixels[at + i] - part) < 12)
    const counts = new Array(width).fill(0)
    for (let i = 0; i < width * height; i++) counts[i % width] += isWanted(4 * i)
    return counts
}"""


def curve_end(page: Page) -> int:
    """How far to the right the curve of the loss goes, in pixels."""
    return max((column for column, count in enumerate(drawn(page, "--accent")) if count), default=-1)


def num_dots(page: Page) -> int:
    """How often the line of the evaluation is thicker than its two pixels."""
    thick = [count > 2 for count in drawn(page, "--evaluation")]
    return sum(now and not before for before, now in zip([False, *thick], thick, strict=False))


def figure(page: Page, name: str, value: str) -> None:
    row = page.get_by_test_id("figures").locator(".figure", has=page.locator(f"dt:text-is('{name}')"))
    expect(row.locator("dd")).to_have_text(value)


def open_form(page: Page, address: str) -> None:
    page.goto(f"{address}/jobs#fine-tune")
    expect(page.get_by_test_id("train-preset")).to_have_value("smollm2-135m")


# -- watching --------------------------------------------------------------------------------------------------------


def test_the_curve_grows_while_the_page_is_open_and_a_reload_loses_nothing(
    page: Page, trainer: Trainer, address: str
) -> None:
    jid = trainer.running("grows", 100)
    page.goto(f"{address}/jobs/{jid}")
    state(page, "Training")
    figure(page, "Step", "100 of 400")
    before = curve_end(page)
    trainer.tells(jid, 200, 100)
    figure(page, "Step", "200 of 400")
    assert curve_end(page) > before + 50
    expect(page.get_by_test_id("eta")).to_have_text("about 7 min left")
    assert num_dots(page) == 4
    expect(page.get_by_test_id("checkpoint")).to_have_count(2)
    expect(page.get_by_test_id("plan")).to_contain_text("sdpa: flash attention needs a GPU")
    end = curve_end(page)
    page.reload()
    figure(page, "Step", "200 of 400")
    assert abs(curve_end(page) - end) < 2
    expect(page.get_by_test_id("log")).to_contain_text("400 steps of 32 sequences")


def test_only_new_points_are_asked_for(page: Page, trainer: Trainer, address: str) -> None:
    jid = trainer.running("asks", 50)
    page.goto(f"{address}/jobs/{jid}")
    figure(page, "Step", "50 of 400")
    with page.expect_request(lambda request: "point=50" in request.url, timeout=LONG_MS):
        trainer.tells(jid, 60, 50)
    figure(page, "Step", "60 of 400")


def test_a_value_is_told_to_the_pointer_and_to_the_keyboard(page: Page, trainer: Trainer, address: str) -> None:
    jid = trainer.running("told", 100)
    page.goto(f"{address}/jobs/{jid}")
    figure(page, "Step", "100 of 400")
    chart = page.get_by_role("slider", name="Training loss by step")
    tip = chart.locator(".chart-tip")
    chart.hover(position={"x": 60, "y": 80})
    expect(tip).to_contain_text("training")
    page.mouse.move(0, 0)
    expect(tip).to_be_hidden()
    chart.focus()
    page.keyboard.press("End")
    expect(tip).to_contain_text("step 100")
    page.keyboard.press("ArrowLeft")
    expect(chart).to_have_attribute("aria-valuenow", "99")
    page.keyboard.press("Home")
    expect(chart).to_have_attribute("aria-valuetext", f"step 1, training {point_of(1, 400)['loss']:.3f}")
    for key in [*["PageUp"] * 5, "ArrowLeft"]:
        page.keyboard.press(key)
    evaluation = 1.3 + 1.8 * math.exp(-50 / 90)
    expect(tip).to_contain_text(f"evaluation {evaluation:.3f}")
    page.keyboard.press("Escape")
    expect(tip).to_be_hidden()


def test_the_chart_follows_the_theme_and_the_width_of_the_window(page: Page, trainer: Trainer, address: str) -> None:
    jid = trainer.running("follows", 200)
    page.emulate_media(color_scheme="light")
    page.goto(f"{address}/jobs/{jid}")
    figure(page, "Step", "200 of 400")
    end = curve_end(page)
    page.emulate_media(color_scheme="dark")
    wait_until(lambda: curve_end(page) == end, "the curve is drawn in the colors of the theme")
    page.get_by_test_id("theme").click()
    wait_until(lambda: curve_end(page) == end, "the curve is drawn in the colors of the theme")
    chart = page.get_by_test_id("loss-chart").locator("canvas")
    page.set_viewport_size({"width": 700, "height": 900})
    expect(chart).to_have_js_property("width", 700 - 28 - 32 - 2)
    assert curve_end(page) < end


def test_a_run_that_is_recovered_says_so_and_marks_where_it_went_on(page: Page, trainer: Trainer, address: str) -> None:
    jid = trainer.running("recovered", 180)
    page.goto(f"{address}/jobs/{jid}")
    state(page, "Training")
    taken = {"state": "recovering", "message": "The spot machine was taken away", "recoveries": 1, "cost_usd": 3.5}
    trainer.tells(jid, 180, 179, outcome=taken)
    state(page, "Recovering")
    expect(page.get_by_test_id("remote")).to_have_text("The spot machine was taken away")
    expect(page.get_by_test_id("eta")).to_have_text("")
    figure(page, "Cost so far", "$3.50")
    trainer.tells(jid, 120, 100, outcome={**taken, "state": "running"}, resumes=[{"step": 100}])
    state(page, "Training")
    expect(page.get_by_test_id("remote")).to_be_hidden()
    expect(page.locator("[data-testid=loss-chart] .mark")).to_have_count(1)
    chart = page.get_by_role("slider", name="Training loss by step")
    chart.focus()
    for key in ["Home", *["PageUp"] * 5, *["ArrowRight"] * 9]:
        page.keyboard.press(key)
    expect(chart).to_have_attribute("aria-valuetext", re.compile("^step 100, .*, resumed from step 100$"))
    expect(page.locator("#job-facts")).to_contain_text("recovered 1 time")


def test_cancelled_it_goes_on_and_removed_it_leaves_its_model(page: Page, trainer: Trainer, address: str) -> None:
    jid = trainer.running("cancelled", 120)
    page.goto(f"{address}/jobs/{jid}")
    page.get_by_test_id("cancel").click()
    expect(page.get_by_test_id("confirm-panel")).to_contain_text("checkpoints are kept")
    page.get_by_test_id("confirm-yes").click()
    state(page, "Cancelling…")
    trainer.jobs.cancelled(jid)
    state(page, "Cancelled")
    expect(page.get_by_test_id("overall-text")).to_contain_text("the job can continue from them")
    page.get_by_test_id("again").click()
    state(page, "Waiting")
    trainer.jobs.started(jid)
    trainer.jobs.failed(jid, "CUDA out of memory; take per_device_tokens=2048")
    state(page, "Failed")
    expect(page.get_by_test_id("problem")).to_contain_text("take per_device_tokens=2048")
    page.get_by_test_id("remove").click()
    expect(page.get_by_test_id("confirm-panel")).to_contain_text("its checkpoints and its log")
    page.get_by_test_id("confirm-yes").click()
    page.wait_for_url("**/jobs", timeout=LONG_MS)


def test_what_a_cleaning_shows_is_not_shown_of_a_fine_tuning_and_the_other_way_round(
    page: Page, trainer: Trainer, address: str
) -> None:
    jid = trainer.running("apart")
    page.goto(f"{address}/jobs/{jid}")
    figure(page, "Step", "150 of 400")
    for hidden in ("#steps-card", "#recipe-card", "#results", "#serving-card"):
        expect(page.locator(hidden)).to_be_hidden()
    expect(page.locator(f"[data-job-id={jid}]")).to_contain_text("Training · 37 %")
    page.goto(f"{address}/jobs/cleaned")
    state(page, "Finished")
    expect(page.locator("#training")).to_be_hidden()
    page.get_by_test_id("learn").click()
    expect(page.get_by_test_id("train-data")).to_have_value("cleaned")


# -- serving ---------------------------------------------------------------------------------------------------------


def test_a_finished_model_is_served_and_chatted_with(page: Page, trainer: Trainer, address: str) -> None:
    jid = trainer.running("serves", 399)
    page.goto(f"{address}/jobs/{jid}")
    figure(page, "Step", "399 of 400")
    expect(page.get_by_test_id("serve")).to_be_hidden()
    name = trainer.finishes(jid).name
    state(page, "Finished")
    expect(page.get_by_test_id("serving")).to_contain_text(f"{name} is ready")
    page.get_by_test_id("serve").click()
    expect(page.get_by_test_id("serving")).to_contain_text("waits for a standby worker")
    assert trainer.trained.is_wanted(name)
    expect(page.get_by_test_id("stop-serving")).to_be_focused()
    trainer.trained.complain(name, "its folder is not on this disk")
    expect(page.get_by_test_id("serving-trouble")).to_have_text("its folder is not on this disk")
    trainer.loads(name)
    expect(page.get_by_test_id("serving")).to_have_text(f"{name} is served by 1 worker.")
    page.get_by_test_id("chat-with").click()
    expect(page.locator("#model")).to_have_value(name)
    assert "model=" not in page.url
    page.go_back()
    page.get_by_test_id("stop-serving").click()
    expect(page.get_by_test_id("stop-serving")).to_be_hidden()
    assert not trainer.trained.is_wanted(name)


# -- ordering --------------------------------------------------------------------------------------------------------


def test_a_fine_tuning_is_ordered_from_the_page(page: Page, trainer: Trainer, address: str) -> None:
    trainer.cleaned()
    page.goto(f"{address}/jobs")
    page.get_by_test_id("tab-train").click()
    expect(page.get_by_test_id("train-learning_rate")).to_have_value("1e-4")
    page.get_by_test_id("train-preset").select_option("vicuna-7b")
    expect(page.get_by_test_id("train-learning_rate")).to_have_value("2e-5")
    page.get_by_test_id("train-preset").select_option("smollm2-135m")
    page.get_by_test_id("train-name").fill("from-the-page")
    page.get_by_test_id("train-epochs").fill("0.5")
    page.get_by_test_id("train-submit").click()
    page.wait_for_url("**/jobs/*", timeout=LONG_MS)
    state(page, "Waiting")
    job = trainer.newest()
    assert (job.kind, job.name) == ("train", "from-the-page")
    assert (job.spec["config"]["epochs"], job.spec["config"]["learning_rate"]) == (0.5, 1e-4)
    assert Path(job.spec["data"][0]) == trainer.system.folder / "cleaned" / "data.jsonl"


def test_a_wrong_value_is_told_at_its_field(page: Page, trainer: Trainer, address: str) -> None:
    trainer.cleaned()
    open_form(page, address)
    before = trainer.newest().id
    for field, wrong, right in (("learning_rate", "fast", "1e-4"), ("name", "no spaces", "fine")):
        page.get_by_test_id(f"train-{field}").fill(wrong)
        page.get_by_test_id("train-submit").click()
        expect(page.get_by_test_id(f"problem-{field}")).to_contain_text(wrong)
        expect(page.get_by_test_id(f"train-{field}")).to_be_focused()
        page.get_by_test_id(f"train-{field}").fill(right)
        expect(page.get_by_test_id(f"problem-{field}")).to_have_text("")
    page.get_by_test_id("train-on").select_option("sky")
    page.get_by_test_id("train-submit").click()
    expect(page.get_by_test_id("problem-out")).to_contain_text("bucket")
    assert trainer.newest().id == before


def test_a_double_click_and_a_lost_answer_make_one_job(page: Page, trainer: Trainer, address: str) -> None:
    trainer.cleaned()
    open_form(page, address)
    before = len(trainer.jobs.list())
    lost: list[str] = []

    def answer_is_lost(route: Route) -> None:
        if route.request.method == "POST" and not lost:
            route.fetch()
            lost.append(route.request.url)
            route.abort()
        else:
            route.continue_()

    page.route("**/api/trainings", answer_is_lost)
    page.get_by_test_id("train-submit").dblclick()
    page.wait_for_url("**/jobs/*", timeout=LONG_MS)
    assert lost and len(trainer.jobs.list()) == before + 1


# -- previews --------------------------------------------------------------------------------------------------------


def ordered_preview(trainer: Trainer) -> Preview:
    """The one that the page ordered last, as the pipelines find it."""

    def found() -> list[Preview]:
        names = trainer.system.redis.scan_iter(trainer.system.keys.preview("*"))
        return [trainer.previews.get(re.findall(r"{(\w+)}", name.decode())[0]) for name in names]

    waiting = lambda: [each for each in found() if each.state == "waiting"]  # noqa: E731
    return wait_until(waiting, "the order of a preview")[0]


def test_a_preview_shows_what_would_be_learnt_and_runs_nothing(page: Page, trainer: Trainer, address: str) -> None:
    trainer.cleaned()
    open_form(page, address)
    before = len(trainer.jobs.list())
    page.get_by_test_id("train-preview").click()
    card = page.get_by_test_id("train-preview-card")
    expect(card).to_contain_text("Reading the data…")
    text = "<img src=x onerror=alert(1)> & **bold**"
    example = PreviewExample("data.jsonl:1", (("user: Hello\n", False), (text, True), ("\n", False)))
    preview = ordered_preview(trainer)
    assert trainer.previews.signed(preview)
    trainer.previews.end(preview, PreviewResult(("3 conversations, 90 tokens.", "<b>1</b> was refused."), (example,)))
    expect(page.get_by_test_id("train-preview-lines").locator("li")).to_have_text(
        ["3 conversations, 90 tokens.", "<b>1</b> was refused."]
    )
    expect(card).not_to_contain_text("Reading the data…")
    shown = page.get_by_test_id("preview-example")
    expect(shown.locator("mark")).to_have_text([text])
    expect(shown.locator("pre")).to_have_text(f"user: Hello\n{text}\n")
    assert page.locator("#train-preview-card img, #train-preview-card b").count() == 0
    assert len(trainer.jobs.list()) == before
    page.get_by_test_id("train-epochs").fill("2")
    expect(card).to_be_hidden()


def test_a_preview_says_why_the_training_would_end_and_what_the_form_lacks(
    page: Page, trainer: Trainer, address: str
) -> None:
    trainer.cleaned()
    open_form(page, address)
    page.get_by_test_id("train-name").fill("another")
    page.get_by_test_id("train-preview").click()
    expect(page.get_by_test_id("train-preview-card")).to_contain_text("Reading the data…")
    problem = "2 of 3 records (66.7%) cannot be trained on"
    trainer.previews.end(ordered_preview(trainer), PreviewResult(("1 conversation",), (), problem))
    expect(page.get_by_test_id("train-preview-problem")).to_have_text(problem)
    expect(page.get_by_test_id("train-preview-lines")).to_have_text("1 conversation")
    page.get_by_test_id("train-epochs").fill("many")
    page.get_by_test_id("train-preview").click()
    expect(page.get_by_test_id("problem-epochs")).to_contain_text("many")
    expect(page.get_by_test_id("train-preview-card")).to_be_hidden()


# -- everywhere ------------------------------------------------------------------------------------------------------


def test_a_phone_has_no_horizontal_scroll(browser: Browser, trainer: Trainer, address: str) -> None:
    context = browser.new_context(viewport={"width": 360, "height": 740}, is_mobile=True, has_touch=True)
    page = context.new_page()
    jid = trainer.running("phone")
    page.goto(f"{address}/jobs/{jid}")
    figure(page, "Step", "150 of 400")
    width = "document.documentElement.scrollWidth"
    assert page.evaluate(width) <= 360
    page.get_by_test_id("loss-chart").locator(".chart").tap(position={"x": 200, "y": 60})
    expect(page.get_by_test_id("loss-chart").locator(".chart-tip")).to_be_visible()
    assert page.evaluate(width) <= 360
    open_form(page, address)
    page.get_by_test_id("train-on").select_option("sky")
    assert page.evaluate(width) <= 360
    sizes = "[...document.querySelectorAll('#train-form input[type=text], #train-form select')].map(e => parseFloat(getComputedStyle(e).fontSize))"  # noqa: E501
    assert min(page.evaluate(sizes)) >= 16  # iOS zooms into anything smaller
    context.close()


def test_everything_that_is_used_has_a_name(page: Page, trainer: Trainer, address: str) -> None:
    nameless = """[...document.querySelectorAll('a, button, input, select, textarea, progress, [role=slider]')]
        .filter(e => e.offsetParent && !e.getAttribute('aria-label') && !e.textContent.trim() && !e.labels?.length)
        .map(e => e.outerHTML)"""
    page.goto(f"{address}/jobs/{trainer.running('named')}")
    figure(page, "Step", "150 of 400")
    assert page.evaluate(nameless) == []
    open_form(page, address)
    page.get_by_test_id("train-on").select_option("sky")
    assert page.evaluate(nameless) == []


def test_one_click_cleans_a_sample_and_trains_on_it(page: Page, trainer: Trainer, address: str) -> None:
    open_form(page, address)
    page.get_by_test_id("train-try").click()
    cleaning = wait_until(
        lambda: next((job for job in trainer.jobs.list() if job.name == "Sample: Velmora"), None), "it"
    )
    assert cleaning.spec["labels"] == ["velmora_html.json"]
    assert trainer.jobs.started(cleaning.id)
    (Path(cleaning.spec["out"]) / "data.jsonl").write_text('{"id": "a", "conversations": []}\n')
    assert trainer.jobs.finished(cleaning.id)
    page.wait_for_url("**/jobs/*", timeout=LONG_MS)
    job = trainer.jobs.get(page.url.rsplit("/", 1)[1])
    assert (job.kind, job.name, job.spec["config"]["model"]) == ("train", "velmora-sample", "smollm2-135m")


def test_what_is_cut_and_how_long_it_takes_is_told_before_the_start(page: Page, trainer: Trainer, address: str) -> None:
    counted = {"records": 137, "tokens": 120_000, "tokens_of_record": {"256": 38, "1024": 99}}
    report = trainer.system.folder / trainer.cleaned("counted", "Counted") / "report.json"
    report.write_text(json.dumps({"after": {"train": counted}}))
    open_form(page, address)
    page.get_by_test_id("train-data").select_option("counted")
    cut, estimate = page.get_by_test_id("train-cut"), page.get_by_test_id("train-estimate")
    expect(cut).to_contain_text("About 99 of 137 conversations are longer than 512 tokens")
    expect(estimate).to_have_text(re.compile(r"^About \d.* tokens to learn from"))
    before = estimate.inner_text()
    page.get_by_test_id("train-seq_len").fill("2048")
    expect(cut).to_be_hidden()
    expect(estimate).not_to_have_text(before)
