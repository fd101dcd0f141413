"""The packaged model over the whole path: a real answer, and one that outlives its worker."""

import os
import signal
import uuid
from collections.abc import Iterator

import pytest

from services.chat.journal import Journal
from tests.end_to_end.system import Browser, System, running_system

pytestmark = pytest.mark.model

MODEL = "smollm2-135m"
QUESTION = "Tell a short story about a lighthouse keeper."


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    with running_system(tmp_path_factory.mktemp("real"), slots=4, cache_gib=0.5) as system:
        yield system


@pytest.fixture(scope="module")
def real_url(real: System) -> str:
    return real.web()


def kill_mid_answer(system: System, browser: Browser, after: int, **sampling: object) -> tuple[str, str]:
    """Ask, kill the owner when `after` characters are shown, return the final text and the journal's."""
    rid = uuid.uuid4().hex
    assert browser.ask(rid, QUESTION, MODEL, **sampling)["ok"]
    browser.wait_for_text(rid, after, 60)
    journal = Journal(system.redis, system.keys)
    head = journal.head(rid)
    assert head is not None and not head.ended, "too late to kill"
    os.kill(next(worker.pid for worker in system.registry.workers() if worker.wid == head.wid), signal.SIGKILL)
    assert browser.wait_for_done(rid, 120)["status"] == "finished"
    read = journal.read(rid)
    assert read is not None and read[0].begins == 2
    assert browser.problems == []
    return browser.text[rid], "".join(event.text for event in read[1])


def start_workers(system: System, num_workers: int, **options: object) -> None:
    """These and no others: one that another test has left would answer this one's questions."""
    for process in system.processes[1:]:  # the first is the web process
        process.terminate()
        process.wait()
    for process in [system.start("workers", **options) for _ in range(num_workers)]:
        system.wait_for_worker(process, 120)


def test_openvino_answers_an_answer_outlives_its_worker_and_a_prompt_that_is_too_long_is_refused(
    real: System, real_url: str
) -> None:
    start_workers(real, 2, engine="openvino")
    browser = Browser(real_url)
    rid = uuid.uuid4().hex
    browser.ask(rid, "What is the capital of France?", MODEL, temperature=0, max_new_tokens=32)
    assert browser.wait_for_done(rid, 60)["status"] == "finished"
    assert "Paris" in browser.text[rid]
    text, journal = kill_mid_answer(real, browser, 60, temperature=0, max_new_tokens=160)
    assert text == journal and len(text) > 200
    long, short = uuid.uuid4().hex, uuid.uuid4().hex
    browser.ask(long, "word " * 20_000, MODEL)
    done = browser.wait_for_done(long, 60)
    assert (done["status"], done["code"]) == ("failed", "prompt_too_long") and "8,192" in done["message"]
    browser.ask(short, "Say hi.", MODEL, max_new_tokens=4)
    assert browser.wait_for_done(short, 60)["status"] == "finished"
    browser.close()


@pytest.mark.slow
@pytest.mark.parametrize(("engine", "tokens"), [("transformers", 60), ("openvino", 120)])
def test_greedy_text_after_a_takeover_equals_an_uninterrupted_run(
    real: System, real_url: str, engine: str, tokens: int
) -> None:
    """A repeatable engine's prefill of the answer so far gives the tokens that decoding would have given."""
    options = {"engine": engine, "repeatable": True, "slots": 1}
    start_workers(real, 2, **options)
    browser = Browser(real_url)
    rid = uuid.uuid4().hex
    browser.ask(rid, QUESTION, MODEL, temperature=0, max_new_tokens=tokens)
    browser.wait_for_done(rid, 120)
    text, journal = kill_mid_answer(real, browser, 40, temperature=0, max_new_tokens=tokens)
    assert text == journal == browser.text[rid]
    browser.close()
