"""The job pages and their HTTP API: submit a cleaning, watch jobs, take their files. docs/protocol.md has the routes.

`training_routes.py` and `training_details.py` have the parts for fine-tunings alone. All data comes from Redis
(`services/jobs/jobs.py`) and the state folder, so a reload loses nothing. They are for administrators.
"""

import logging
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from typing import Any

import gevent
from flask import Blueprint, Response, jsonify, render_template, request
from redis import Redis
from werkzeug.wsgi import wrap_file

from services.connection.connect import server_time, translated
from services.errors import ConfigurationError, Conflict, Gone, InvalidRequest, shown
from services.jobs.batches import UNIT as BATCH_UNIT
from services.jobs.batches import BatchProgress
from services.jobs.job_folders import JobFolders
from services.jobs.jobs import Job, Jobs, JobStep, progress_of
from services.jobs.recipe import parse_recipe
from services.jobs.record_counts import totals_of
from services.jobs.training_progress import UNIT, TrainingProgress
from services.places import SAMPLES_DIR
from webapp.access.visitors import guard
from webapp.jobs import downloads as job_files
from webapp.jobs.cleaning_orders import PageJobs, checked_recipe, parse_order
from webapp.jobs.training_details import TrainingAnswers
from webapp.jobs.uploads import Upload, Uploads
from webapp.server.threads import in_thread

log = logging.getLogger("chatserver.web")

PIECE_BYTES = 524_288  # of an upload in one request, or as much as a request may have
MAX_LISTED = 100
SAMPLES = ("sharegpt_html.json", "velmora_html.json")  # to clean; to learn an invented country's facts from
MAX_LOG_LINES = 500  # in one answer

_CURSOR = re.compile("[0-9]{1,19}(-[0-9]{1,19})?")
_STEP = re.compile("-1|[0-9]{1,12}")

# The report is a page made of other people's data. It may show itself and nothing more; its origin is nobody's.
REPORT_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'; sandbox"
)


def make_blueprint(
    redis: Redis,
    jobs: Jobs,
    page_jobs: PageJobs,
    folders: JobFolders,
    uploads: Uploads,
    wake: Callable[[str], object],
    trainings: TrainingAnswers,
    *,
    max_body_bytes: int,
) -> Blueprint:
    """Routes `/jobs`, `/jobs/<jid>`, `/api/jobs…`, `/api/recipes…`, `/api/samples/<name>`,
    `/api/uploads…`.

    `wake(jid)` tells the pipelines that there is a job. It may fail: the pipelines also look by themselves.
    """
    pages = Blueprint("jobs", __name__)
    guard(pages, admins=True)
    _add_pages(pages)
    _add_looking(pages, redis, jobs, folders, trainings)
    _add_changing(pages, redis, jobs, page_jobs, folders, wake)
    _add_recipes(pages, page_jobs, uploads)
    _add_samples(pages)
    _add_uploads(pages, uploads, min(PIECE_BYTES, max_body_bytes))
    return pages


def _add_pages(pages: Blueprint) -> None:
    @pages.get("/jobs")
    def list_page() -> str:
        return render_template("jobs.html")

    @pages.get("/jobs/<jid>")
    def job_page(jid: str) -> str:
        return render_template("job.html")


def _add_looking(pages: Blueprint, redis: Redis, jobs: Jobs, folders: JobFolders, trainings: TrainingAnswers) -> None:
    @pages.get("/api/jobs")
    def api_list() -> Response:
        with translated():
            now_s = server_time(redis)
            return jsonify(jobs=[_listed(jobs, job, now_s) for job in jobs.list(MAX_LISTED)], now_s=round(now_s))

    @pages.get("/api/jobs/<jid>")
    def api_job(jid: str) -> Response:
        after, point = request.args.get("after", "0"), request.args.get("point", "-1")
        if not _CURSOR.fullmatch(after):
            raise InvalidRequest("after is the id of a log line, as this route gives it")
        if not _STEP.fullmatch(point):
            raise InvalidRequest("point is the last step whose point is known, -1 for none")
        with translated():
            job = jobs.get(jid)
            now_s = server_time(redis)
            lines = jobs.tail(jid, after, MAX_LOG_LINES)
            of_kind = trainings.of(job, int(point)) if job.kind == "train" else _KINDS[job.kind](jobs, job, now_s)
        return jsonify(
            job=row(job),
            removes_files=folders.own(job) is not None,
            log=[{"id": entry, "time_s": time_s, "line": line} for entry, time_s, line in lines],
            now_s=round(now_s),
            **of_kind,
        )

    @pages.get("/api/jobs/<jid>/files/<kind>")
    def api_file(jid: str, kind: str) -> Response:
        with translated():
            job = jobs.get(jid)
        if job.kind != "clean":
            raise Gone("only a cleaning has files for download")
        if job.state != "finished":
            raise Gone(f"the job is {job.state}: it has no files until it is finished")
        return _download(in_thread(job_files.open_file, Path(job.spec["out"]), kind), job)


def _add_changing(
    pages: Blueprint,
    redis: Redis,
    jobs: Jobs,
    page_jobs: PageJobs,
    folders: JobFolders,
    wake: Callable[[str], object],
) -> None:
    @pages.post("/api/jobs")
    def api_submit() -> tuple[Response, int]:
        order = parse_order(request.get_json())
        with translated():
            redis.ping()  # while it is away, nothing is moved into the folder of a job that cannot be made
            jid, name, spec = in_thread(page_jobs.prepare, order)
            job = jobs.submit(jid, "clean", name, spec)
        wake_soon(wake, jid)
        return jsonify(job=row(job)), 201

    @pages.post("/api/jobs/<jid>/cancel")
    def api_cancel(jid: str) -> Response:
        with translated():
            job = jobs.cancel(jid)
        wake_soon(wake, jid)
        return jsonify(job=row(job))

    @pages.post("/api/jobs/<jid>/again")
    def api_again(jid: str) -> Response:
        """Start a failed or cancelled job again. It continues from its finished units."""
        with translated():
            job = jobs.get(jid)
            if job.state not in ("failed", "cancelled"):
                raise Conflict(f"the job is {job.state}; only a failed or cancelled job can start again")
            if job.kind == "batch":
                raise Conflict("a batch that has ended stays ended; order a new one with its file")
            job = jobs.resubmit(job)
        wake_soon(wake, jid)
        return jsonify(job=row(job))

    @pages.delete("/api/jobs/<jid>")
    def api_remove(jid: str) -> Response:
        with translated():
            job = jobs.get(jid)
            folders.check_unused(job, jobs.unfinished())
            in_thread(folders.remove, job)
            jobs.remove(jid)
        return jsonify(ok=True)


def _add_recipes(pages: Blueprint, page_jobs: PageJobs, uploads: Uploads) -> None:
    @pages.get("/api/recipes")
    def api_recipes() -> Response:
        return jsonify(recipes=in_thread(page_jobs.recipes), max_upload_bytes=uploads.max_bytes)

    @pages.post("/api/recipes/check")
    def api_check() -> Response:
        """Check a recipe before the browser sends gigabytes of files for it."""
        raw = request.get_json()
        text = raw.get("recipe") if isinstance(raw, dict) else None
        if not isinstance(text, str):
            raise InvalidRequest("recipe must be the text of a recipe")
        return jsonify(name=checked_recipe(text).name)


def _add_samples(pages: Blueprint) -> None:
    @pages.get("/api/samples/<name>")
    def api_sample(name: str) -> Response:
        """A file for a first try. The page sends it back as if its user had chosen it."""
        if name not in SAMPLES:
            raise Gone(f"no sample has the name {shown(name)}; samples: {', '.join(SAMPLES)}")
        return Response(in_thread((SAMPLES_DIR / name).read_bytes), mimetype="application/octet-stream")


def _add_uploads(pages: Blueprint, uploads: Uploads, piece_bytes: int) -> None:
    @pages.post("/api/uploads")
    def api_upload() -> tuple[Response, int]:
        raw = request.get_json()
        if not isinstance(raw, dict):
            raise InvalidRequest("an upload must be an object with name and size")
        made = in_thread(uploads.create, raw.get("name"), raw.get("size"))
        return jsonify(**_upload(made), piece_bytes=piece_bytes), 201

    @pages.get("/api/uploads/<upload_id>")
    def api_upload_state(upload_id: str) -> Response:
        return jsonify(**_upload(in_thread(uploads.get, upload_id)), piece_bytes=piece_bytes)

    @pages.put("/api/uploads/<upload_id>")
    def api_upload_piece(upload_id: str) -> Response:
        offset = request.args.get("offset", "")
        if not (offset.isascii() and offset.isdigit() and len(offset) < 16):
            raise InvalidRequest("give ?offset=N, where the piece begins")
        return jsonify(**_upload(in_thread(uploads.write, upload_id, int(offset), request.get_data())))

    @pages.delete("/api/uploads/<upload_id>")
    def api_upload_drop(upload_id: str) -> Response:
        in_thread(uploads.drop, upload_id)
        return jsonify(ok=True)


def row(job: Job) -> dict[str, Any]:
    """The fields of a job that all pages show."""
    fields = ("id", "kind", "name", "state", "created_s", "started_s", "ended_s", "error", "cancelling")
    return {name: getattr(job, name) for name in fields}


def _listed(jobs: Jobs, job: Job, now_s: float) -> dict[str, Any]:
    """A job in the list. Its progress is the fraction and the phase, and only while they change."""
    listed = {name: value for name, value in row(job).items() if name != "error"}
    if job.state == "running" and job.kind == "train":
        training = TrainingProgress.from_note(jobs.units(job.id).get(UNIT, {}))
        listed.update(fraction=round(training.fraction, 3), phase=training.phase)
    elif job.state == "running":
        listed["fraction"] = round(progress_of(job, jobs.units(job.id), now_s).fraction, 3)
    return listed


def _of_cleaning(jobs: Jobs, job: Job, now_s: float) -> dict[str, Any]:
    """The fields of a cleaning alone: its steps, its recipe, its files."""
    progress = progress_of(job, jobs.units(job.id), now_s)
    return {
        "progress": {
            **asdict(progress),
            "totals": totals_of(progress.steps),
            "eta_s": None if progress.eta_s is None else round(progress.eta_s),
            "steps": [asdict(step) for step in _all_steps(str(job.spec.get("recipe", "")), progress.steps)],
        },
        "spec": {name: job.spec.get(name) for name in ("recipe", "recipe_name", "inputs", "labels", "out")},
        "files": in_thread(job_files.available, Path(job.spec["out"])) if job.state == "finished" else {},
    }


def _of_batch(jobs: Jobs, job: Job, now_s: float) -> dict[str, Any]:
    """The same fields of a batch. Its files belong to who ordered it, and are at `/v1/files`."""
    progress = progress_of(job, jobs.units(job.id), now_s)
    told = BatchProgress.from_note(jobs.units(job.id).get(BATCH_UNIT, {}))
    eta_s = None if progress.eta_s is None else round(progress.eta_s)
    return {
        "progress": {**asdict(progress), "totals": told.totals, "eta_s": eta_s, "steps": []},
        "spec": {"recipe_name": job.spec["endpoint"], "inputs": [job.name], "out": job.spec["out"]},
        "files": {},
    }


_KINDS = {"clean": _of_cleaning, "batch": _of_batch}


def _all_steps(recipe: str, found: Sequence[JobStep]) -> list[JobStep]:
    """The steps of a job in the order of its recipe, including steps that no record has reached."""
    reached = {step.label: step for step in found}
    labels = _labels(recipe)
    return [reached.get(label, JobStep(label)) for label in labels] + [s for s in found if s.label not in labels]


@lru_cache(maxsize=64)
def _labels(recipe: str) -> tuple[str, ...]:
    try:
        parsed = parse_recipe(recipe)
    except ConfigurationError:  # of another version: what is known of its steps is shown
        return ()
    return ("read", *(parsed.step_label(index) for index in range(len(parsed.steps))))


def wake_soon(wake: Callable[[str], object], jid: str) -> None:
    """Call `wake` in a greenlet, so that the request neither waits for it nor fails with it."""

    def call() -> None:
        try:
            wake(jid)
        except Exception as error:  # noqa: BLE001  # whatever the broker's client raises: the job is found anyway
            log.info(
                "the pipelines got no wake-up: %s; they will find the job by themselves", error, extra={"job": jid}
            )

    gevent.spawn(call)


def _upload(upload: Upload) -> dict[str, Any]:
    return {"id": upload.id, "name": upload.name, "size": upload.size, "offset": upload.offset}


def _download(found: job_files.OpenFile, job: Job) -> Response:
    """The answer with the open file, or with a part of it, or 304, as the client asks."""
    response = Response(wrap_file(request.environ, found.file), mimetype=None, direct_passthrough=True)
    response.headers["Content-Type"] = found.content_type
    response.content_length = found.size
    response.set_etag(found.etag)
    if found.name == "report.html":
        response.headers["Content-Security-Policy"] = REPORT_POLICY
    else:
        response.headers.set("Content-Disposition", "attachment", filename=f"{job.id}-{found.name}")
    response.make_conditional(request, accept_ranges=True, complete_length=found.size)
    return response
