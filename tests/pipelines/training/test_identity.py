"""Which run a checkpoint or a model belongs to: an old result never stands for new data or settings."""

import json
from pathlib import Path
from typing import Any

import pytest

from pipelines.training.checkpoints import Checkpoints
from pipelines.training.identity import Identity, base_digest, digests_of
from pipelines.training.manifest import check_same_run
from pipelines.training.reporting import Reporter
from services.errors import ConfigurationError
from services.jobs.training import TrainingConfig
from services.models.catalogue import ModelSource

SILENT = Reporter(rank=1)


def identity(data: str = "aa", base: str = "b1", **fields: Any) -> Identity:
    return Identity.of(TrainingConfig(**{"name": "tiny", "model": "m", **fields}), [data], base)


def sealed(folder: Path, of: Identity | None) -> None:
    checkpoints = Checkpoints(folder, 3, SILENT, identity=of)
    checkpoints.begin(4)
    (checkpoints.folder(4) / "weights").write_bytes(b"w")
    checkpoints.complete(4, {})


@pytest.mark.parametrize(
    ("other", "named"),
    [
        (identity(data="cc"), "content of data file 1 has changed"),
        (identity(learning_rate=0.5), "learning_rate was 2e-05 and is 0.5"),
        (identity(learn="last"), "learn was 'all' and is 'last'"),
        (identity(undesirable_weight=2), "undesirable_weight was 1.0 and is 2.0"),
        (identity(base="b2"), "base model's files have changed"),
        (Identity.of(TrainingConfig(name="tiny", model="m"), ["aa", "bb"], "b1"), "was 1 data files and is 2"),
    ],
)
def test_a_checkpoint_of_other_data_or_settings_is_named_and_not_continued(
    tmp_path: Path, other: Identity, named: str
) -> None:
    sealed(tmp_path, identity())
    assert Checkpoints(tmp_path, 3, SILENT, identity=identity()).newest() == 4
    with pytest.raises(ConfigurationError, match=named):
        Checkpoints(tmp_path, 3, SILENT, identity=other).newest()


def test_how_a_run_computes_and_saves_may_change_between_two_starts(tmp_path: Path) -> None:
    sealed(tmp_path, identity())
    changed = identity(save_steps=7, per_device_tokens=64, attention="sdpa", keep_checkpoints=1)
    assert Checkpoints(tmp_path, 3, SILENT, identity=changed).newest() == 4


def test_packing_that_the_model_cannot_do_is_another_order_of_the_data(tmp_path: Path) -> None:
    sealed(tmp_path, identity().packed(True))
    with pytest.raises(ConfigurationError, match="packed was True and is False"):
        Checkpoints(tmp_path, 3, SILENT, identity=identity().packed(False)).newest()


def test_a_checkpoint_of_an_older_build_is_continued(tmp_path: Path) -> None:
    sealed(tmp_path, None)
    assert Checkpoints(tmp_path, 3, SILENT, identity=identity()).newest() == 4


def test_the_manifest_of_an_older_build_is_read_and_compared(tmp_path: Path) -> None:
    old = {**TrainingConfig(name="tiny", model="m").model_dump(mode="json"), "packing": True}
    old["lora_targets"] = ["q_proj", "v_proj"]
    manifest = json.loads(json.dumps({"config": old, "data": [{"path": "/d", "sha256": "aa"}]}))
    check_same_run(manifest, identity(), tmp_path)
    with pytest.raises(ConfigurationError, match=r"content of data file 1 has changed.*another --out"):
        check_same_run(manifest, identity(data="cc"), tmp_path)


def test_the_best_checkpoint_outlives_those_that_follow(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, 1, SILENT)
    for step in (1, 2, 3):
        checkpoints.begin(step)
        checkpoints.complete(step, {})
        checkpoints.best = 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-1", "checkpoint-3"]


def test_a_base_that_was_trained_anew_is_another_base(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    source = ModelSource("base", "folder", tmp_path)
    before = base_digest(source)
    (tmp_path / "config.json").write_text('{"a": 1}')
    assert base_digest(source) != before
    assert base_digest(ModelSource("hub", "hub", hub_id="a/b")) == ""


def test_data_that_is_gone_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"nothing\.jsonl"):
        digests_of([tmp_path / "nothing.jsonl"])
