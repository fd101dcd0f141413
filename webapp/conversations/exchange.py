"""Search, export and import of conversations, and what a browser of an earlier build kept. The chat page calls it."""

import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from flask import Blueprint, Response, jsonify, request

from services.conversations.conversations import Conversations
from services.conversations.exports import ENDINGS, MIMETYPES, exported
from services.conversations.imports import Importer
from services.conversations.reading import IN_PARTS, read_apart
from services.conversations.search import Search
from services.conversations.shapes import Tree
from services.errors import Busy, InvalidRequest, NotFound, TooLarge, shown
from webapp.access.bodies import json_object
from webapp.access.visitors import current_user, guard
from webapp.conversations.routes import limit_in_query
from webapp.server.threads import in_slow_thread, in_thread

IMPORT_PATH = "/api/import"
BLOCK_BYTES = 262_144
MAX_RECEIVING = 8
MAX_QUERY_CHARS = 1_000


def make_blueprint(
    conversations: Conversations, search: Search, importer: Importer, *, max_import_bytes: int
) -> Blueprint:
    """Routes `/api/search`, `/api/export`, `/api/import`, `/api/conversations/<cid>/export`, `…/take-over`."""
    routes = Blueprint("exchange", __name__, url_prefix="/api")
    guard(routes)
    _add_search(routes, search)
    _add_exports(routes, conversations)
    _add_imports(routes, importer, max_import_bytes)
    return routes


def _add_search(routes: Blueprint, search: Search) -> None:
    @routes.get("/search")
    def find() -> Response:
        query = request.args.get("q", "")
        if len(query) > MAX_QUERY_CHARS:
            raise InvalidRequest(f"q has more than {MAX_QUERY_CHARS} characters", field="q")
        hits = in_slow_thread(search.find, current_user(), query, limit_in_query(30))
        return jsonify(results=[hit.as_dict() for hit in hits])


def _add_exports(routes: Blueprint, conversations: Conversations) -> None:
    @routes.get("/conversations/<cid>/export")
    def export_one(cid: str) -> Response:
        kind = _kind()
        tree = in_slow_thread(conversations.find, current_user(), cid)
        return _file(exported(iter([tree]), kind), kind, "conversation")

    @routes.get("/export")
    def export_all() -> Response:
        kind, user = _kind(), current_user()
        ids = in_slow_thread(conversations.ids, user)
        return _file(exported(_trees(conversations, user, ids), kind), kind, "conversations")


def _add_imports(routes: Blueprint, importer: Importer, max_bytes: int) -> None:
    one_at_a_time = threading.Lock()  # each takes memory, and the processor
    receiving: set[str] = set()

    @routes.post("/import")
    def take() -> Response:
        user = current_user()
        in_thread(importer.check_room)
        with tempfile.TemporaryDirectory(prefix="chatserver-import-") as folder:
            path = Path(folder) / "file"
            with _received(receiving, user):
                _receive(path, max_bytes)
            if not one_at_a_time.acquire(blocking=False):
                raise Busy("another import runs; try again in a minute", retry_after_s=30)
            try:
                return jsonify(in_slow_thread(importer.take, user, read_apart(path)))
            finally:
                one_at_a_time.release()

    @routes.post("/conversations/take-over")
    def take_over() -> Response:
        return jsonify(taken=in_slow_thread(importer.take_over, current_user(), json_object().get("conversations")))


@contextmanager
def _received(receiving: set[str], user: str) -> Iterator[None]:
    """Bounds how many files come in at once: a slow sender keeps nobody else from importing."""
    if user in receiving or len(receiving) >= MAX_RECEIVING:
        raise Busy("files for the import are on their way already; try again in a minute", retry_after_s=30)
    receiving.add(user)
    try:
        yield
    finally:
        receiving.discard(user)


def _receive(path: Path, max_bytes: int) -> None:
    request.max_content_length = max_bytes
    received = 0
    with path.open("wb") as file:
        while block := request.stream.read(BLOCK_BYTES):
            received += len(block)
            if received > max_bytes:
                raise TooLarge(f"the file has more than {max_bytes:,} bytes; {IN_PARTS}")
            in_thread(file.write, block)


def _kind() -> str:
    kind = request.args.get("as", "json")
    if kind not in MIMETYPES:
        raise InvalidRequest(f"as={shown(kind)} is not one of {', '.join(MIMETYPES)}", field="as")
    return kind


def _trees(conversations: Conversations, user: str, ids: list[str]) -> Iterator[Tree]:
    for cid in ids:
        try:
            yield conversations.find(user, cid)
        except NotFound:  # deleted meanwhile
            continue


def _file(pieces: Iterator[bytes], kind: str, name: str) -> Response:
    response = Response(_in_threads(pieces), mimetype=MIMETYPES[kind])
    response.headers.set("Content-Disposition", "attachment", filename=f"{name}.{ENDINGS[kind]}")
    return response


def _in_threads(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """The same pieces, each read and written in a thread."""

    def following() -> bytes | None:
        return next(pieces, None)

    while (piece := in_slow_thread(following)) is not None:
        yield piece
