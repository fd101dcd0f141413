"""Fine-tunings of the older build: one whose model is wanted, one whose machine lost power between two checkpoints."""

import json
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.end_to_end.system import Browser, System, wait_until
from tests.upgrades.conftest import Command
from tests.upgrades.old_build import OldBuild

pytestmark = pytest.mark.timeout(600)  # the training program and the worker import torch
TRAIN_S = 280.0
STEPS = 6


@pytest.fixture(scope="module")
def url(system: System) -> Iterator[str]:
    """Everything is started at once: a standby worker and the pipelines."""
    pytest.importorskip("torch")
    address = system.web()
    for role in ("worker", "trainings", "beat"):
        system.start("pipelines", role)
    system.start("workers", "--standby", cache_gib=0.01, slots=2)
    yield address
    log = "".join(path.read_text() for path in sorted(Path(system.folder).glob("process-*.log")))
    assert "unregistered" not in log and "Traceback" not in log


def shown(url: str, jid: str) -> dict[str, Any]:
    """A job as its page has it."""
    return dict(requests.get(f"{url}/api/jobs/{jid}", timeout=10).json())


def test_a_finished_fine_tuning_keeps_its_points_its_log_and_its_model(url: str, old: OldBuild) -> None:
    found = shown(url, old.job("training"))
    training = found["training"]
    assert found["job"]["state"] == "finished"
    assert [point["step"] for point in training["points"]] == [1, 2]
    assert all(point["loss"] > 0 for point in training["points"])
    assert training["data"] == [str(old.state / "jobs" / old.job("page") / "data.jsonl")]
    assert any("What is learnt" in line["line"] for line in found["log"])
    assert training["serving"]["name"] == "tiny-tuned"
    assert training["serving"]["wanted"]


def test_a_model_that_was_wanted_is_served(url: str, old: OldBuild, chatserver: Command) -> None:
    (model,) = [row for row in json.loads(chatserver("models", "--json")) if row["name"] == "tiny-tuned"]
    assert model["trained"]["job"] == old.job("training")
    assert model["trained"]["step"] == 2
    browser, rid = Browser(url, old.cookie()), uuid.uuid4().hex
    answer = browser.ask(rid, "What is 3 plus 3?", "tiny-tuned", max_new_tokens=4, temperature=0)
    assert answer["ok"], answer
    assert browser.wait_for_done(rid, TRAIN_S)["status"] == "finished"
    browser.close()


def test_an_interrupted_fine_tuning_goes_on_from_its_checkpoint(url: str, old: OldBuild, system: System) -> None:
    """It is launched by what the older build wrote down, and its steps before the checkpoint stay as they were."""
    jid, checkpoint = old.job("half_training"), old.about["checkpoint"]
    job = f"chatserver:{{{jid}}}:job"
    wait_until(lambda: system.redis.hget(job, "state") in (b"finished", b"failed"), "its end", TRAIN_S, 0.1)
    found = shown(url, jid)
    training = found["training"]
    assert found["job"]["state"] == "finished", found["job"]
    assert [resume["step"] for resume in training["resumes"]] == [checkpoint]
    assert [point["step"] for point in training["points"]] == list(range(1, STEPS + 1))
    assert training["serving"]["name"] == "tiny-half"
    assert (
        training["serving"]["path"] == str(old.folder / "state/trained") + "/" + Path(training["out"]).name + "/model"
    )
