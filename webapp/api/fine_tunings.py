"""The routes `/v1/fine_tuning/jobs…`: a model is trained on an uploaded file, and served.

They are for administrators, as the job pages are, and show the fine-tunings that the caller ordered here.
"""

from collections.abc import Callable, Iterator
from typing import Any

from flask import Blueprint, Response, jsonify, request
from pydantic import Field

from services.connection.connect import translated
from services.jobs.fine_tunings import ID_PREFIX, KIND, FineTunings
from services.jobs.job_folders import removed_unless_made
from services.jobs.jobs import LOG_LINES, ORDER, Job, Jobs
from services.jobs.training_progress import UNIT, TrainingProgress
from services.openai.bodies import checked
from services.openai.fine_tuning_bodies import FineTuningBody
from services.serving.trained_models import TrainedModels
from webapp.access.callers import Callers
from webapp.api.document import Document
from webapp.api.fine_tuning_objects import checkpoints_of, events_of, job_object
from webapp.api.intake import asked
from webapp.api.pages import PageQuery, listed, page_of
from webapp.server.threads import in_thread

UNSERVED: dict[str, tuple[Any, ...]] = {"integrations": ([],)}
TAG = "Fine-tuning"


class EventsQuery(PageQuery):
    """The query of a job's events."""

    limit: int = Field(20, ge=1, le=1_000)


class FineTuningDesk:
    """Takes orders, and looks at jobs, for the routes."""

    def __init__(
        self,
        callers: Callers,
        jobs: Jobs,
        orders: FineTunings,
        trained: TrainedModels,
        wake: Callable[[str], object],
    ) -> None:
        """`wake(jid)` tells the pipelines of a job."""
        self._callers = callers
        self._jobs = jobs
        self._orders = orders
        self._trained = trained
        self._wake = wake

    def order(self) -> Job:
        """The job of a body. Under an idempotency key it is made once: also one that has failed stays as it is."""
        user = self._callers.administrator(request)
        base, body = asked(request, user, FineTuningBody, UNSERVED)
        jid = f"{ID_PREFIX}{base}"
        if known := self._orders.find(jid, user):
            return known
        with removed_unless_made(self._jobs, jid, self._orders.data_folder(jid), in_thread):
            name, spec = in_thread(self._orders.prepare, jid, user, body, self._trained.list())
            job = self._jobs.submit(jid, KIND, name, spec)
        self._wake(job.id)
        return job

    def cancel(self, job_id: str) -> Job:
        job = self._jobs.cancel(self.get(job_id).id)
        self._wake(job.id)
        return job

    def get(self, job_id: str) -> Job:
        return self._orders.get(job_id, self._callers.administrator(request))

    def ordered(self, query: PageQuery) -> Iterator[Job]:
        """The caller's jobs as the query wants them, with the metadata that it names."""
        user = self._callers.administrator(request)
        wanted = {name[9:-1]: value for name, value in request.args.items() if name.startswith("metadata[")}
        found = self._orders.list(user, newest_first=query.order == "desc", after=query.after)
        return (job for job in found if wanted.items() <= job.spec[ORDER]["metadata"].items())

    def told(self, job: Job) -> dict[str, Any]:
        """The job as clients read it."""
        return job_object(job, self.progress(job), self._made(job))

    def events(self, job: Job) -> list[dict[str, Any]]:
        return events_of(job, self._jobs.tail(job.id, limit=LOG_LINES), self._jobs.points(job.id), self.progress(job))

    def checkpoints(self, job: Job) -> list[dict[str, Any]]:
        return checkpoints_of(job, self.progress(job), self._made(job))

    def progress(self, job: Job) -> TrainingProgress:
        return TrainingProgress.from_note(self._jobs.units(job.id).get(UNIT, {}))

    def _made(self, job: Job) -> str | None:
        model = self._trained.made_by(job.id) if job.state == "finished" else None
        return model.name if model else None


def make_blueprint(desk: FineTuningDesk, document: Document) -> Blueprint:
    """All routes of fine-tunings."""
    routes = Blueprint("fine_tunings", __name__, url_prefix="/v1/fine_tuning/jobs")
    _add_changing(routes, desk, document)
    _add_looking(routes, desk, document)
    _add_details(routes, desk, document)
    return routes


def _add_changing(routes: Blueprint, desk: FineTuningDesk, document: Document) -> None:
    @routes.post("")
    @document.describes(json=FineTuningBody, tag=TAG)
    def create_fine_tuning() -> Response:
        """Train a model on a file, and serve the new one."""
        with translated():
            return jsonify(desk.told(desk.order()))

    @routes.post("/<job_id>/cancel")
    @document.describes(tag=TAG)
    def cancel_fine_tuning(job_id: str) -> Response:
        """End a fine-tuning. It is `running` until it has saved its last checkpoint."""
        with translated():
            return jsonify(desk.told(desk.cancel(job_id)))


def _add_looking(routes: Blueprint, desk: FineTuningDesk, document: Document) -> None:
    @routes.get("")
    @document.describes(query=PageQuery, tag=TAG)
    def list_fine_tunings() -> Response:
        """List your fine-tunings, newest first."""
        query = checked(request.args, PageQuery)
        with translated():
            return jsonify(page_of(map(desk.told, desk.ordered(query)), query.limit))

    @routes.get("/<job_id>")
    @document.describes(tag=TAG)
    def retrieve_fine_tuning(job_id: str) -> Response:
        """A fine-tuning as it is now."""
        with translated():
            return jsonify(desk.told(desk.get(job_id)))


def _add_details(routes: Blueprint, desk: FineTuningDesk, document: Document) -> None:
    @routes.get("/<job_id>/events")
    @document.describes(query=EventsQuery, tag=TAG)
    def list_events(job_id: str) -> Response:
        """Its log and its losses, newest first."""
        return jsonify(_page(desk, job_id, desk.events, checked(request.args, EventsQuery), "event"))

    @routes.get("/<job_id>/checkpoints")
    @document.describes(query=PageQuery, tag=TAG)
    def list_checkpoints(job_id: str) -> Response:
        """Its checkpoints, newest first."""
        return jsonify(_page(desk, job_id, desk.checkpoints, checked(request.args, PageQuery), "checkpoint"))


def _page(
    desk: FineTuningDesk, job_id: str, of: Callable[[Job], list[dict[str, Any]]], query: PageQuery, what: str
) -> dict[str, Any]:
    with translated():
        found = of(desk.get(job_id))
    return page_of(listed(found, query, what), query.limit)
