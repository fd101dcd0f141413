"""The arena's button: a fine-tuning on what people preferred, for administrators. `chatserver improve` does the same.

A browser names a preset and a model of this installation, never a file or folder of the server.
"""

from collections.abc import Callable
from pathlib import Path

from flask import Blueprint, Response, jsonify

from services.connection.connect import translated
from services.database.database import Database
from services.errors import ConfigurationError, InvalidRequest, shown
from services.jobs.jobs import Jobs
from services.jobs.training import preset_names
from services.jobs.training_jobs import Place
from services.judgements.improvement import MIN_PAIRS, Improvement, improvement, preference_config
from services.judgements.records import Export, pairs
from services.models.catalogue import packaged_models
from services.serving.trained_models import TrainedModel, TrainedModels
from webapp.access.bodies import json_object
from webapp.access.visitors import guard
from webapp.server.threads import in_slow_thread


def make_blueprint(
    database: Database, jobs: Jobs, trained: TrainedModels, state_dir: Path, wake: Callable[[str], object]
) -> Blueprint:
    """Routes `/api/arena/improvement`; `wake(jid)` tells the pipelines of a job and may raise."""
    routes = Blueprint("improvement", __name__, url_prefix="/api/arena/improvement")
    guard(routes, admins=True)

    @routes.get("")
    def choices() -> Response:
        found = in_slow_thread(_pairs, database)
        with translated():
            models = sorted(_trainable(trained))
        told = {"pairs": len(found.records), "left_out": found.said(), "min_pairs": MIN_PAIRS}
        return jsonify(**told, presets=preset_names(), models=models)

    @routes.post("")
    def order() -> tuple[Response, int]:
        """`{preset, model?}` → `{job}`: the id of the job; the same one until somebody judges again."""
        body = json_object()
        preset, model = body.get("preset", ""), body.get("model", "")
        with translated():
            known = _trainable(trained)
        made = in_slow_thread(_ordered, database, state_dir, known, preset, model)
        with translated():
            job = jobs.submit(made.id, "train", made.name, made.spec)
            wake(job.id)
        return jsonify(job=job.id, pairs=made.num_pairs), 201

    return routes


def _pairs(database: Database) -> Export:
    with database.read() as session:
        return pairs(session)


def _trainable(trained: TrainedModels) -> dict[str, TrainedModel | None]:
    """Name → the model, if it was trained here and its folder is on this machine; None for a packaged one."""
    ours = {model.name: model for model in trained.list() if not (model.remote or model.is_adapter)}
    return {**{model.name: None for model in packaged_models()}, **ours}


def _ordered(
    database: Database, state_dir: Path, known: dict[str, TrainedModel | None], preset: object, model: object
) -> Improvement:
    if not isinstance(preset, str) or preset not in preset_names():  # else it would be the path of a file
        raise InvalidRequest(f"{shown(preset)} is not a preset; presets: {', '.join(preset_names())}", field="preset")
    if not isinstance(model, str) or model not in ("", *known):
        raise InvalidRequest(
            f"{shown(model)} is no model that can be trained here; models: {', '.join(known)}", field="model"
        )
    try:
        config = preference_config(preset, model, {})
        return improvement(_pairs(database), state_dir, config, known.get, place=Place())
    except ConfigurationError as error:
        raise InvalidRequest.of(error) from None
