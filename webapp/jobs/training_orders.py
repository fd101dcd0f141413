"""Fine-tunings that the page orders: the choices that it offers, and the spec of an order.

A page names presets, models and finished cleanings, never a file of the server. The result goes to
state_dir/trained/<model's name>-<jid>/, beside the models of the command, or to the bucket in the order.

`training_routes.py` calls it. Functions that touch the disk block: call them in a thread.
"""

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import orjson

from services.errors import ConfigurationError, Gone, InvalidRequest, shown
from services.jobs.jobs import Job
from services.jobs.training import TrainingConfig, preset_names, read_training
from services.jobs.training_jobs import BUCKETS, PLACES, Place, training_spec
from services.models.catalogue import packaged_models
from services.serving.trained_models import TrainedModel
from webapp.jobs import downloads as job_files
from webapp.jobs.cleaning_orders import checked_key

NUMBERS = ("epochs", "learning_rate", "seq_len", "max_steps", "eval_fraction")  # that the form lets people change
TEXTS = ("preset", "data", "name", "model", "on", "out")
MAX_VALUE_CHARS = 300
MAX_REPORT_BYTES = 8 << 20


@dataclass(frozen=True)
class TrainingOrder:
    """The data that the page sends. `data` is the id of a cleaning; `numbers` holds the typed numbers, as text."""

    key: str
    preset: str
    data: str
    name: str
    model: str
    on: str
    out: str
    spot: bool
    numbers: Mapping[str, str]


def parse_training_order(raw: object) -> TrainingOrder:
    """An order from untrusted JSON `{key, preset, data, name, model, on, out?, spot?, numbers?}`."""
    if not isinstance(raw, Mapping):
        raise InvalidRequest("a fine-tuning must be an object with key, preset, data, name, model and on")
    numbers = raw.get("numbers", {})
    if not isinstance(numbers, Mapping) or not all(name in NUMBERS for name in numbers):
        raise InvalidRequest(f"numbers must be an object with some of {', '.join(NUMBERS)}")
    spot = raw.get("spot", False)
    if not isinstance(spot, bool):
        raise InvalidRequest("spot must be true or false", field="spot")
    return TrainingOrder(
        checked_key(raw.get("key")),
        spot=spot,
        numbers={name: _text(numbers, name) for name in numbers},
        **{name: _text(raw, name) for name in TEXTS},
    )


def _text(raw: Mapping[str, Any], field: str) -> str:
    value = raw.get(field, "")
    if not isinstance(value, str) or len(value) > MAX_VALUE_CHARS:
        raise InvalidRequest(f"{field} must be a text of at most {MAX_VALUE_CHARS} characters", field=field)
    return value.strip()


class PageTraining:
    """The choices, and the spec of an order. `trained` is the registered models: a thread must not ask Redis."""

    def __init__(self, trained_dir: Path) -> None:
        self._trained_dir = trained_dir.resolve()

    def presets(self) -> list[dict[str, Any]]:
        """Every preset with the fields that the form shows."""
        shown_fields = {"name", "model", "method", "tokens_per_step", *NUMBERS}
        return [
            {"preset": name, **read_training(name).model_dump(mode="json", include=shown_fields)}
            for name in preset_names()
        ]

    def models(self, trained: Sequence[TrainedModel]) -> list[str]:
        """The models that a page may choose: packaged and registered ones, and the model of each preset."""
        return sorted({*(model.name for model in packaged_models()), *_folders(trained)})

    def spec(self, order: TrainingOrder, jid: str, cleaning: Job, trained: Sequence[TrainedModel]) -> dict[str, Any]:
        """The job's spec. Raises InvalidRequest, with the field at fault where it is one, or Gone
        when the cleaning has no data."""
        config = self._config(order, trained)
        data = data_of(cleaning)
        if order.on not in PLACES:
            raise InvalidRequest(f"a fine-tuning runs on {' or '.join(PLACES)}, not on {shown(order.on)}", field="on")
        if order.on == "sky" and not order.out.startswith(BUCKETS):
            raise InvalidRequest(
                f"SkyPilot machines are deleted after the run: give a bucket for the model, such as "
                f"{BUCKETS[0]}my-bucket/run",
                field="out",
            )
        out = order.out if order.on == "sky" else str(self._trained_dir / f"{config.name}-{jid[:8]}")
        try:
            return training_spec(config, [str(data)], out, Place(order.on, order.spot and order.on == "sky"))
        except ConfigurationError as error:
            raise InvalidRequest.of(error) from None

    def preview_spec(self, order: TrainingOrder, cleaning: Job, trained: Sequence[TrainedModel]) -> dict[str, Any]:
        """The spec of a preview, which needs no bucket: nothing is written."""
        placed = replace(order, out=order.out or f"{BUCKETS[0]}your-bucket")
        return self.spec(placed, "preview", cleaning, trained)

    def _config(self, order: TrainingOrder, trained: Sequence[TrainedModel]) -> TrainingConfig:
        if order.preset not in preset_names():  # else it would be the path of a file
            raise InvalidRequest(
                f"{shown(order.preset)} is not a preset; presets: {', '.join(preset_names())}. "
                "The command also takes files: chatserver train submit",
                field="preset",
            )
        given = {name: value for name, value in order.numbers.items() if value}
        try:
            config = read_training(order.preset, {"name": order.name, **given})
        except ConfigurationError as error:
            raise InvalidRequest.of(error) from None
        return config.model_copy(update={"model": self._model(order, config.model, trained)})

    def _model(self, order: TrainingOrder, of_preset: str, trained: Sequence[TrainedModel]) -> str:
        """The model as the training program finds it; for a registered model its folder, which the page never sees."""
        wanted, folders = order.model, _folders(trained)
        if wanted in ("", of_preset):
            return of_preset
        if wanted in folders and order.on == "sky":
            raise InvalidRequest(
                f"{wanted} is on this machine's disk, where SkyPilot machines cannot read it", field="model"
            )
        if wanted in self.models(trained):
            return folders.get(wanted, wanted)
        raise InvalidRequest(
            f"the page trains the preset's {of_preset}, or {', '.join(self.models(trained))}, not {shown(wanted)}; "
            "the command also takes folders and hub ids: chatserver train submit --set model=…",
            field="model",
        )


def _folders(trained: Sequence[TrainedModel]) -> dict[str, str]:
    """Name → folder of each registered model that can be trained."""
    return {model.name: model.path for model in trained if model.trainable}


def data_of(cleaning: Job) -> Path:
    """The data of a finished cleaning, as lines. Raises InvalidRequest."""
    if cleaning.kind != "clean" or cleaning.state != "finished":
        raise InvalidRequest(f"{cleaning.name!r} is not a finished cleaning", field="data")
    out = Path(cleaning.spec["out"])
    try:
        found = job_files.open_file(out, "data")
    except Gone as error:
        raise InvalidRequest(error.message, field="data") from None
    found.file.close()
    if not found.name.endswith(".jsonl"):
        raise InvalidRequest(
            f"{found.name} of {cleaning.name!r} is not JSONL: clean again with a recipe whose output is sharegpt-jsonl",
            field="data",
        )
    return out / found.name


def usable_data(jobs: Sequence[Job]) -> list[dict[str, Any]]:
    """`{id, name, bytes, ended_s, lengths}` of every cleaning whose data a fine-tuning can use."""
    rows = []
    for job in jobs:
        with contextlib.suppress(InvalidRequest, OSError):
            size = data_of(job).stat().st_size
            lengths = _lengths(Path(job.spec["out"]))
            rows.append({"id": job.id, "name": job.name, "bytes": size, "ended_s": job.ended_s, "lengths": lengths})
    return rows


def _lengths(out: Path) -> dict[str, Any] | None:
    """`{records, tokens, tokens_of_record}` of the data as its cleaning counted them; None if it counted no tokens."""
    try:
        report = job_files.open_file(out, "report.json")
        with report.file:
            found = orjson.loads(report.file.read(MAX_REPORT_BYTES))["after"]["train"]
        if not found["tokens_of_record"]:
            return None
        return {name: found[name] for name in ("records", "tokens", "tokens_of_record")}
    except (Gone, ValueError, KeyError, TypeError):  # of another version, or by hand
        return None
