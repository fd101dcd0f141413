"""The HTTP API of fine-tunings: the choices, the order, and the serving of the new model.

docs/protocol.md has the routes. `routes.py` has the pages, and shows, cancels and removes every kind of job.
"""

import logging
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import gevent
from flask import Blueprint, Response, jsonify, request
from redis import Redis

from services.connection.connect import translated
from services.errors import Conflict, Gone, InvalidRequest
from services.jobs.jobs import Job, Jobs
from services.jobs.previews import Preview, PreviewResult, Previews
from services.jobs.training_jobs import PLACES
from services.serving.trained_models import TrainedModels
from webapp.access.visitors import guard
from webapp.jobs.cleaning_orders import PageJobs
from webapp.jobs.routes import MAX_LISTED, row, wake_soon
from webapp.jobs.training_details import TrainingAnswers
from webapp.jobs.training_orders import PageTraining, parse_training_order, usable_data
from webapp.server.threads import in_thread

log = logging.getLogger("chatserver.web")


def make_blueprint(
    redis: Redis,
    jobs: Jobs,
    page_jobs: PageJobs,
    page_training: PageTraining,
    trained: TrainedModels,
    answers: TrainingAnswers,
    wake: Callable[[str], object],
    previews: Previews,
    ask_preview: Callable[[str], object],
) -> Blueprint:
    """Routes `/api/trainings…` and `/api/jobs/<jid>/serve`; `wake(jid)` is that of `routes.make_blueprint`,
    `ask_preview(pid)` has the pipelines make a preview."""
    pages = Blueprint("trainings", __name__)
    guard(pages, admins=True)
    _add_choices(pages, jobs, page_training, trained, answers)
    _add_ordering(pages, redis, jobs, page_jobs, page_training, trained, wake)
    _add_previews(pages, jobs, page_training, trained, previews, ask_preview)
    _add_serving(pages, jobs, trained, answers)
    return pages


def _add_choices(
    pages: Blueprint, jobs: Jobs, page_training: PageTraining, trained: TrainedModels, answers: TrainingAnswers
) -> None:
    @pages.get("/api/trainings")
    def api_choices() -> Response:
        with translated():
            listed = jobs.list(MAX_LISTED)
            models = page_training.models(trained.list())
            rates = answers.rates(listed)
        data = in_thread(usable_data, listed)
        presets = in_thread(page_training.presets)
        return jsonify(presets=presets, models=models, data=data, places=PLACES, rates=rates)


def _add_ordering(
    pages: Blueprint,
    redis: Redis,
    jobs: Jobs,
    page_jobs: PageJobs,
    page_training: PageTraining,
    trained: TrainedModels,
    wake: Callable[[str], object],
) -> None:
    @pages.post("/api/trainings")
    def api_order() -> tuple[Response, int]:
        order = parse_training_order(request.get_json())
        jid = page_jobs.jid_of(order.key)
        with translated():
            redis.ping()
            spec = in_thread(page_training.spec, order, jid, _cleaning(jobs, order.data), trained.list())
            job = jobs.submit(jid, "train", spec["config"]["name"], spec)
        wake_soon(wake, jid)
        return jsonify(job=row(job)), 201


def _add_previews(
    pages: Blueprint,
    jobs: Jobs,
    page_training: PageTraining,
    trained: TrainedModels,
    previews: Previews,
    ask: Callable[[str], object],
) -> None:
    @pages.post("/api/trainings/previews")
    def api_preview() -> tuple[Response, int]:
        """What an order's data would become. The same order sent again gets the same preview."""
        order = parse_training_order(request.get_json())
        with translated():
            spec = in_thread(page_training.preview_spec, order, _cleaning(jobs, order.data), trained.list())
            preview, is_new = previews.order(spec)
        if is_new:
            _ask_soon(ask, previews, preview)
        return jsonify(preview=_told(preview)), 201

    @pages.get("/api/trainings/previews/<pid>")
    def api_previewed(pid: str) -> Response:
        with translated():
            return jsonify(preview=_told(previews.get(pid)))


def _ask_soon(ask: Callable[[str], object], previews: Previews, preview: Preview) -> None:
    """In a greenlet, as `wake_soon` does. Nobody finds a preview by himself, so the page is told when asking fails."""

    def call() -> None:
        try:
            ask(preview.id)
        except Exception as error:  # noqa: BLE001  # whatever the broker's client raises
            log.warning("the pipelines cannot be asked for a preview: %s", error)
            previews.end(preview, PreviewResult(problem="the pipelines cannot be reached; try again in a moment"))

    gevent.spawn(call)


def _told(preview: Preview) -> dict[str, Any]:
    """Without the spec, which names the server's files."""
    return {"id": preview.id, "state": preview.state, **asdict(preview.result)}


def _cleaning(jobs: Jobs, jid: str) -> Job:
    if not jid:
        raise InvalidRequest("choose a finished cleaning: the model learns from its data", field="data")
    try:
        return jobs.get(jid)
    except (Gone, InvalidRequest) as error:
        raise InvalidRequest(error.message, field="data") from None


def _add_serving(pages: Blueprint, jobs: Jobs, trained: TrainedModels, answers: TrainingAnswers) -> None:
    @pages.post("/api/jobs/<jid>/serve")
    def api_serve(jid: str) -> Response:
        """`{wanted}`: from now on a worker shall load the model of this job, or every worker shall drop it."""
        raw = request.get_json()
        wanted = raw.get("wanted", True) if isinstance(raw, dict) else None
        if not isinstance(wanted, bool):
            raise InvalidRequest("wanted must be true or false")
        with translated():
            job = jobs.get(jid)
            model = answers.model_of(job)
            if model is None:
                raise Conflict(f"the job is {job.state} and has no model to serve")
            (trained.serve if wanted else trained.stop_serving)(model.name)
            return jsonify(serving=answers.serving(model))
