"""The routes `/v1/batches…`: questions from a file, answered when there is room."""

from collections.abc import Callable
from typing import Annotated, Any, Literal

from flask import Blueprint, Response, jsonify, request
from pydantic import BaseModel, Field

from services.connection.connect import translated
from services.jobs.batches import ID_PREFIX, KIND, WINDOW_S, Batches, BatchProgress
from services.jobs.jobs import Job, Jobs
from services.openai.bodies import checked
from services.openai.response_bodies import MetadataName, MetadataValue
from webapp.access.callers import Callers
from webapp.api.document import Document
from webapp.api.intake import asked
from webapp.api.pages import PageQuery, page_of
from webapp.server.threads import in_thread

UNSERVED: dict[str, tuple[Any, ...]] = {"output_expires_after": ()}


class BatchBody(BaseModel):
    """The body of `POST /v1/batches`."""

    input_file_id: str = Field(description="A file with the purpose `batch`.")
    endpoint: str = Field(description="`/v1/chat/completions`, `/v1/completions` or `/v1/responses`.")
    completion_window: Literal["24h"]
    metadata: Annotated[dict[MetadataName, MetadataValue], Field(max_length=16)] | None = None


def make_blueprint(
    callers: Callers,
    jobs: Jobs,
    batches: Batches,
    wake: Callable[[str], object],
    document: Document,
    *,
    max_unfinished: int,
) -> Blueprint:
    """All routes of batches. `wake(jid)` tells the pipelines of a job; a user may have `max_unfinished`."""
    routes = Blueprint("batches", __name__, url_prefix="/v1/batches")
    _add_changing(routes, callers, jobs, batches, wake, document, max_unfinished)
    _add_looking(routes, callers, batches, document)
    return routes


def _add_changing(
    routes: Blueprint,
    callers: Callers,
    jobs: Jobs,
    batches: Batches,
    wake: Callable[[str], object],
    document: Document,
    max_unfinished: int,
) -> None:
    @routes.post("")
    @document.describes(json=BatchBody, tag="Batches")
    def create_batch() -> Response:
        """Answer the questions of a file."""
        with translated():
            user = callers.user(request)
            base, body = asked(request, user, BatchBody, UNSERVED)
            jid, order = f"{ID_PREFIX}{base}", (user, body.input_file_id, body.endpoint, body.metadata)
            if known := batches.find(jid, user):  # also one that has ended: its input is not there any more
                return jsonify(batch_object(known, batches.progress(known)))
            with batches.admitted(jid, user, max_unfinished):
                job = jobs.submit(jid, KIND, *in_thread(batches.prepare, jid, *order))
            in_thread(batches.let_go, job)  # the same order may have come twice, and the other one has ended
        wake(job.id)
        return jsonify(batch_object(job, BatchProgress()))

    @routes.post("/<batch_id>/cancel")
    @document.describes(tag="Batches")
    def cancel_batch(batch_id: str) -> Response:
        """End a batch; what was answered by now is in its files. One that has ended stays as it is."""
        with translated():
            job = jobs.cancel(batches.get(batch_id, callers.user(request)).id)
            progress = batches.progress(job)
            in_thread(batches.let_go, job)
        wake(job.id)
        return jsonify(batch_object(job, progress))


def _add_looking(routes: Blueprint, callers: Callers, batches: Batches, document: Document) -> None:
    @routes.get("/<batch_id>")
    @document.describes(tag="Batches")
    def retrieve_batch(batch_id: str) -> Response:
        """A batch as it is now."""
        with translated():
            job = batches.get(batch_id, callers.user(request))
            return jsonify(batch_object(job, batches.progress(job)))

    @routes.get("")
    @document.describes(query=PageQuery, tag="Batches")
    def list_batches() -> Response:
        """List your batches, newest first."""
        query = checked(request.args, PageQuery)
        with translated():
            user = callers.user(request)
            found = batches.list(user, newest_first=query.order == "desc", after=query.after)
            return jsonify(page_of((batch_object(job, batches.progress(job)) for job in found), query.limit))


def batch_object(job: Job, progress: BatchProgress) -> dict[str, Any]:
    """A batch as OpenAI's clients read it."""
    status, ended_s = status_of(job, progress), int(job.ended_s) or None
    faults = {"object": "list", "data": progress.errors or _fault(job)} if job.state == "failed" else None
    return {
        "id": job.id,
        "object": "batch",
        "endpoint": job.spec["endpoint"],
        "errors": faults,
        "input_file_id": job.spec["file"],
        "completion_window": "24h",
        "status": status,
        "output_file_id": progress.output_file or None,
        "error_file_id": progress.error_file or None,
        "created_at": int(job.created_s),
        "in_progress_at": progress.checked_s or None,
        "expires_at": int(job.created_s) + WINDOW_S,
        "finalizing_at": progress.finalizing_s or None,
        **{f"{end}_at": ended_s if status == end else None for end in ("completed", "failed", "expired", "cancelled")},
        "cancelling_at": None,
        "request_counts": {"total": progress.of, "completed": progress.answered, "failed": progress.failed},
        "metadata": job.spec["metadata"] or None,
    }


def status_of(job: Job, progress: BatchProgress) -> str:
    """In OpenAI's words."""
    if job.state == "finished":
        return "expired" if progress.expired else "completed"
    if job.ended:
        return job.state  # failed or cancelled
    if job.cancelling:
        return "cancelling"
    if progress.finalizing_s:
        return "finalizing"
    return "in_progress" if progress.of else "validating"


def _fault(job: Job) -> list[dict[str, Any]]:
    """Of a batch that failed for another reason than its input."""
    return [{"code": "failed", "line": None, "message": job.error.partition("\n")[0], "param": None}]
