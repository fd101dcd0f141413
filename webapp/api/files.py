"""The routes `/v1/files…`: what programs give to batches and fine-tunings, and what these give back.

A body is written to the disk as it comes, and nobody's before it is known who sends it.
"""

import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import quote

from flask import Blueprint, Request, Response, jsonify, request
from pydantic import Field
from werkzeug.exceptions import ClientDisconnected
from werkzeug.formparser import FormDataParser
from werkzeug.wsgi import wrap_file

from services.connection.connect import translated
from services.errors import InvalidRequest, shown
from services.jobs.stored_files import FileDraft, StoredFile, StoredFiles
from services.openai.bodies import checked
from webapp.access.callers import Callers
from webapp.api.document import Document
from webapp.api.pages import PageQuery, page_of
from webapp.server.threads import in_thread

UPLOAD_PATH = "/v1/files"
PURPOSES = ("batch", "fine-tune")
MAX_FIELDS_BYTES = 262_144  # of all that a form has beside its file; the parser holds two of its reads, too
MAX_PARTS = 16
BLOCK_BYTES = 65_536
FORM = "multipart/form-data"


class FilesQuery(PageQuery):
    """The query of `GET /v1/files`."""

    limit: int = Field(10_000, ge=1, le=10_000)
    purpose: Literal["batch", "fine-tune", "batch_output", "fine-tune-results"] | None = None


@dataclass
class _Parts:
    """Gives the one file of a form its place. Called by the parser for each file of the form."""

    made: FileDraft
    num_files: int = 0

    def __call__(self, *_: object, **__: object) -> Any:
        self.num_files += 1
        if self.num_files > 1:
            raise InvalidRequest("send one file in one request", field="file")
        return self.made


def make_blueprint(callers: Callers, files: StoredFiles, document: Document) -> Blueprint:
    """All routes of files."""
    routes = Blueprint("files", __name__, url_prefix="/v1/files")
    _add_upload(routes, callers, files, document)
    _add_looking(routes, callers, files, document)
    return routes


def _add_upload(routes: Blueprint, callers: Callers, files: StoredFiles, document: Document) -> None:
    @routes.post("")
    @document.describes(tag="Files")
    def create_file() -> Response:
        """Keep a file: a form with `purpose` (`batch` or `fine-tune`) and `file`."""
        with translated():
            user = callers.user(request)
        if request.mimetype != FORM:
            raise InvalidRequest(f"send a form, `Content-Type: {FORM}`, not {shown(request.mimetype or 'none')}")
        request.max_content_length = files.max_bytes + MAX_FIELDS_BYTES
        with files.draft(user) as made:
            purpose, filename = _received(request, made)
            response = jsonify(file_object(in_thread(files.publish, made, user, purpose, filename)))
        return response

    @routes.delete("/<file_id>")
    @document.describes(tag="Files")
    def delete_file(file_id: str) -> Response:
        """Forget a file. What was ordered with it goes on."""
        with translated():
            user = callers.user(request)
        in_thread(files.delete, file_id, user)
        return jsonify(id=file_id, object="file", deleted=True)


def _add_looking(routes: Blueprint, callers: Callers, files: StoredFiles, document: Document) -> None:
    @routes.get("")
    @document.describes(query=FilesQuery, tag="Files")
    def list_files() -> Response:
        """List your files."""
        query = checked(request.args, FilesQuery)
        with translated():
            user = callers.user(request)
        return jsonify(in_thread(_listed, files, user, query))

    @routes.get("/<file_id>")
    @document.describes(tag="Files")
    def retrieve_file(file_id: str) -> Response:
        """One file's name, size and purpose."""
        with translated():
            user = callers.user(request)
        return jsonify(file_object(in_thread(files.get, file_id, user)))

    @routes.get("/<file_id>/content")
    @document.describes(tag="Files")
    def download_file(file_id: str) -> Response:
        """The bytes of a file."""
        with translated():
            user = callers.user(request)
        stored = in_thread(files.get, file_id, user)
        body = wrap_file(request.environ, files.content(stored).open("rb"), BLOCK_BYTES)
        response = Response(body, mimetype="application/octet-stream", direct_passthrough=True)
        response.content_length = stored.num_bytes
        response.headers.set("Content-Disposition", "attachment", **_names(stored.filename))
        response.headers["X-Content-Type-Options"] = "nosniff"
        return response


def _names(filename: str) -> dict[str, str]:
    """A header has Latin letters: another name is quoted, beside what is left of it for old clients."""
    plain = unicodedata.normalize("NFKD", filename).encode("ascii", "ignore").decode()
    return {"filename": plain or "file"} | ({} if plain == filename else {"filename*": f"UTF-8''{quote(filename, '')}"})


def _listed(files: StoredFiles, user: str, query: FilesQuery) -> dict[str, Any]:
    def found() -> Iterator[dict[str, Any]]:
        for stored in files.list(user, newest_first=query.order == "desc", after=query.after):
            if query.purpose in (None, stored.purpose):
                yield file_object(stored)

    return page_of(found(), query.limit)


def _received(asked: Request, made: FileDraft) -> tuple[str, str]:
    """The purpose and name of the form's file, whose bytes are in the draft. Raises InvalidRequest."""
    parts = _Parts(made)
    parser = FormDataParser(parts, max_form_memory_size=MAX_FIELDS_BYTES, max_form_parts=MAX_PARTS, silent=False)
    try:
        _, fields, found = parser.parse(asked.stream, asked.mimetype, asked.content_length, asked.mimetype_params)
    except (ValueError, ClientDisconnected):
        raise InvalidRequest("the form is not whole, or not a form; send the file again") from None
    if "file" not in found:
        raise InvalidRequest("the form has no file", field="file")
    for name in fields:
        if name.startswith("expires_after"):
            raise InvalidRequest("files do not expire here; leave expires_after out, and delete it", field=name)
    purpose = fields.get("purpose", "")
    if purpose not in PURPOSES:
        raise InvalidRequest(f"purpose={shown(purpose)} is not {' or '.join(PURPOSES)}", field="purpose")
    return purpose, found["file"].filename or ""


def file_object(stored: StoredFile) -> dict[str, Any]:
    """A file as OpenAI's clients read it."""
    return {
        "id": stored.id,
        "object": "file",
        "bytes": stored.num_bytes,
        "created_at": stored.created_s,
        "expires_at": None,
        "filename": stored.filename,
        "purpose": stored.purpose,
        "status": "processed",
        "status_details": None,
    }
