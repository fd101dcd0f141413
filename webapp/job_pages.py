"""The job pages and their HTTP API: submit a cleaning, watch it, take its files. docs/protocol.md has the routes.

Everything shown comes from Redis (`services/jobs.py`) and the state folder, so a reload loses nothing. Until there are
accounts, `local_only.py` decides who is answered.
"""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gevent
from flask import Blueprint, Response, jsonify, render_template, request
from werkzeug.wsgi import wrap_file

from services.connection import server_time, translated
from services.errors import Conflict, Forbidden, Gone, InvalidRequest
from services.jobs import TERMINAL, Job, Jobs
from webapp import job_files, local_only
from webapp.page_jobs import PageJobs, parse_order
from webapp.threads import in_thread
from webapp.uploads import Upload, Uploads

log = logging.getLogger("chatserver.web")

PIECE_BYTES = 524_288  # of an upload in one request, or as much as a request may have
MAX_LISTED = 100
MAX_LOG_LINES = 500  # in one answer

# The report is a page made of other people's data. It may show itself and nothing more; its origin is nobody's.
REPORT_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'; sandbox"
)


def make_blueprint(
    jobs: Jobs, page_jobs: PageJobs, uploads: Uploads, wake: Callable[[str], object], *, max_body_bytes: int
) -> Blueprint:
    """Routes `/jobs`, `/jobs/<jid>`, `/api/jobs…`, `/api/recipes`, `/api/uploads…`.

    `wake(jid)` tells those who clean that there is a new job; it may fail, they look by themselves too.
    """
    pages = Blueprint("jobs", __name__)
    piece_bytes = min(PIECE_BYTES, max_body_bytes)

    @pages.before_request
    def guard() -> tuple[str, int] | None:
        reason = local_only.refusal(request)
        if reason and request.path.startswith("/api/"):
            raise Forbidden(reason)
        return (render_template("elsewhere.html", reason=reason), 403) if reason else None

    @pages.after_request
    def fresh(response: Response) -> Response:
        response.headers.setdefault("Cache-Control", "private, no-cache")
        response.headers.setdefault("Cross-Origin-Resource-Policy", "same-origin")
        return response

    # -- pages ---------------------------------------------------------------------------------------------------------

    @pages.get("/jobs")
    def list_page() -> str:
        return render_template("jobs.html")

    @pages.get("/jobs/<jid>")
    def job_page(jid: str) -> str:
        return render_template("job.html")

    # -- jobs ----------------------------------------------------------------------------------------------------------

    @pages.get("/api/jobs")
    def api_list() -> Response:
        with translated():
            listed = [_job_row(jobs, job) for job in jobs.list(MAX_LISTED)]
            return _cheap(jobs=listed, now_s=round(server_time(jobs.redis), 1))

    @pages.post("/api/jobs")
    def api_submit() -> tuple[Response, int]:
        order = parse_order(request.get_json())
        jid, name, spec = in_thread(page_jobs.prepare, order)
        with translated():
            job = _known(jobs, jid) or jobs.submit(jid, "clean", name, spec)
        if (job.name, job.spec) != (name, spec):
            raise Conflict("this key has made another job; send a new key")
        _wake(wake, jid)
        return jsonify(job=_job(job)), 201

    @pages.get("/api/jobs/<jid>")
    def api_job(jid: str) -> Response:
        with translated():
            job = jobs.get(jid)
            lines = jobs.tail(jid, request.args.get("after", "0"), MAX_LOG_LINES)
            row, now_s = _job_row(jobs, job), round(server_time(jobs.redis), 1)
        files = in_thread(job_files.available, Path(job.spec["out"])) if job.state == "finished" else {}
        return _cheap(
            job=row,
            spec={name: job.spec.get(name) for name in ("recipe", "recipe_name", "inputs", "labels", "out")},
            removes_files=page_jobs.is_ours(job),
            log=[{"id": entry, "time_s": time_s, "line": line} for entry, time_s, line in lines],
            files=files,
            now_s=now_s,
        )

    @pages.post("/api/jobs/<jid>/cancel")
    def api_cancel(jid: str) -> Response:
        with translated():
            job = jobs.cancel(jid)
        _wake(wake, jid)
        return jsonify(job=_job(job))

    @pages.post("/api/jobs/<jid>/again")
    def api_again(jid: str) -> Response:
        """A job that failed or was cancelled goes on where it stood."""
        with translated():
            job = jobs.get(jid)
            if job.state not in ("failed", "cancelled"):
                raise Conflict(f"the job is {job.state}; only a failed or cancelled one is set going again")
            job = jobs.submit(jid, job.kind, job.name, job.spec)
        _wake(wake, jid)
        return jsonify(job=_job(job))

    @pages.delete("/api/jobs/<jid>")
    def api_remove(jid: str) -> Response:
        with translated():
            job = jobs.get(jid)
            in_thread(page_jobs.remove_files, job)
            jobs.remove(jid)
        return jsonify(ok=True)

    @pages.get("/api/jobs/<jid>/files/<kind>")
    def api_file(jid: str, kind: str) -> Response:
        with translated():
            job = jobs.get(jid)
        if job.state != "finished":
            raise Gone(f"the job is {job.state}: it has no files until it is finished")
        return _download(in_thread(job_files.open_file, Path(job.spec["out"]), kind), job)

    # -- what a job is made of -----------------------------------------------------------------------------------------

    @pages.get("/api/recipes")
    def api_recipes() -> Response:
        return _cheap(recipes=in_thread(page_jobs.recipes), max_upload_bytes=uploads.max_bytes)

    @pages.post("/api/uploads")
    def api_upload() -> tuple[Response, int]:
        raw = request.get_json()
        if not isinstance(raw, dict):
            raise InvalidRequest("an upload is an object with name and size")
        return jsonify(**_upload(in_thread(uploads.create, raw.get("name"), raw.get("size"))), piece_bytes=piece_bytes), 201

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

    return pages


def _known(jobs: Jobs, jid: str) -> Job | None:
    try:
        return jobs.get(jid)
    except Gone:
        return None


def _wake(wake: Callable[[str], object], jid: str) -> None:
    """In its own greenlet: neither its time nor its failure is the request's."""

    def call() -> None:
        try:
            wake(jid)
        except Exception as error:  # noqa: BLE001  # whatever the broker's client raises: the job is found anyway
            log.info("job %s: nobody was woken (%s); it is found within a minute", jid, error)

    gevent.spawn(call)


def _upload(upload: Upload) -> dict[str, Any]:
    return {"id": upload.id, "name": upload.name, "size": upload.size, "offset": upload.offset}


def _cheap(**body: Any) -> Response:
    """JSON with a validator: a client that asks again gets 304 for what it has."""
    response = jsonify(**body)
    response.add_etag()
    return response.make_conditional(request)


def _download(found: job_files.Found, job: Job) -> Response:
    """The open file; a part of it, or 304, if the client asks for that."""
    response = Response(wrap_file(request.environ, found.file), mimetype=None, direct_passthrough=True)
    response.headers["Content-Type"] = found.content_type
    response.content_length = found.size
    response.set_etag(found.etag)
    if found.name == "report.html":
        response.headers["Content-Security-Policy"] = REPORT_POLICY
    else:
        response.headers.set("Content-Disposition", "attachment", filename=f"{job.id}-{found.name}")
    return response.make_conditional(request, accept_ranges=True, complete_length=found.size)
