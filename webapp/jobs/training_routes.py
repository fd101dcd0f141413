"""The HTTP API of fine-tunings: the choices, the order, and the serving of the new model.

docs/protocol.md has the routes. `routes.py` has the pages, and shows, cancels and removes every kind of job.
"""

from collections.abc import Callable

from flask import Blueprint, Response, jsonify, request
from redis import Redis

from services.connection.connect import translated
from services.errors import Conflict, Gone, InvalidRequest
from services.jobs.jobs import Job, Jobs
from services.jobs.training_jobs import PLACES
from services.serving.trained_models import TrainedModels
from webapp.access.visitors import guard
from webapp.jobs.cleaning_orders import PageJobs
from webapp.jobs.routes import MAX_LISTED, row, wake_soon
from webapp.jobs.training_details import TrainingAnswers
from webapp.jobs.training_orders import PageTraining, parse_training_order, usable_data
from webapp.server.threads import in_thread


def make_blueprint(
    redis: Redis,
    jobs: Jobs,
    page_jobs: PageJobs,
    page_training: PageTraining,
    trained: TrainedModels,
    answers: TrainingAnswers,
    wake: Callable[[str], object],
) -> Blueprint:
    """Routes `/api/trainings` and `/api/jobs/<jid>/serve`; `wake(jid)` is that of `routes.make_blueprint`."""
    pages = Blueprint("trainings", __name__)
    guard(pages, admins=True)
    _add_choices(pages, jobs, page_training, trained, answers)
    _add_ordering(pages, redis, jobs, page_jobs, page_training, trained, wake)
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
