"""Makes the web application. It builds all objects and passes them on; nothing is global."""

import datetime
import logging
import random
import threading
from collections.abc import Callable
from functools import cache, partial
from typing import TYPE_CHECKING, Any

import orjson
from flask import Flask, Request, request
from flask.json.provider import DefaultJSONProvider
from flask.sessions import SecureCookieSession, SecureCookieSessionInterface
from itsdangerous import BadSignature
from redis import Redis

from services.accounts.accounts import Accounts
from services.accounts.api_keys import ApiKeys
from services.arena.battles import Battles
from services.arena.standings import Standings
from services.chat.dead_letters import DeadLetters
from services.chat.feed import AnswerFeed
from services.chat.requests import Requests
from services.connection.connect import connect, translated
from services.connection.redis_disk import RedisDisk
from services.conversations.archivist import Archivist
from services.conversations.asking import Asker
from services.conversations.conversations import Conversations
from services.conversations.feedback import Feedback
from services.conversations.imports import Importer
from services.conversations.prompt import PromptLimits
from services.conversations.search import Search
from services.conversations.stored import StoredBytes
from services.conversations.titling import Titler
from services.database.database import Database
from services.errors import InvalidRequest, TooLarge
from services.jobs.batches import Batches
from services.jobs.celery_app import ask_preview, make_celery, wake
from services.jobs.fine_tunings import FineTunings
from services.jobs.job_folders import JobFolders
from services.jobs.jobs import Jobs
from services.jobs.previews import Previews
from services.jobs.signature import job_key
from services.jobs.stored_files import StoredFiles, UserRoom
from services.machine.files import kept_key
from services.responses.responses import Responses
from services.serving.overview import served_names, waiting_for
from services.serving.registry import Registry
from services.serving.trained_models import TrainedModels
from services.settings import Settings
from services.wire.keys import Keys
from services.wire.messages import ChatRequest
from webapp.access.address import address_of
from webapp.access.callers import Callers
from webapp.access.newcomers import Newcomers
from webapp.access.open_sockets import OpenSockets
from webapp.access.our_names import browser_scheme, only_our_names
from webapp.access.stored import Stored
from webapp.access.submit_rate import SubmitRate
from webapp.access.visitors import use_accounts
from webapp.accounts import pages as account_pages
from webapp.accounts.adoption import Adoption
from webapp.accounts.attempts import SignInAttempts
from webapp.accounts.group_limits import GroupLimits
from webapp.admin import blueprints as admin_pages
from webapp.admin.storage import Storage
from webapp.api import batches, blueprints, completions, files, fine_tunings, models, responses
from webapp.api.completions import Completer
from webapp.api.custodian import Custodian
from webapp.api.document import Document
from webapp.api.fine_tunings import FineTuningDesk
from webapp.api.responses import Responder
from webapp.arena import improvement_routes
from webapp.arena import routes as arena_routes
from webapp.arena.asking import Arena
from webapp.chat import pages, sockets, usage
from webapp.chat.relay import Relay
from webapp.conversations import exchange, feedback, shared
from webapp.conversations import routes as conversation_routes
from webapp.conversations.sockets import ask_handler
from webapp.errors import answer_errors
from webapp.jobs import routes as job_pages
from webapp.jobs import training_routes as training_pages
from webapp.jobs.cleaning_orders import PageJobs
from webapp.jobs.routes import wake_soon
from webapp.jobs.training_details import TrainingAnswers
from webapp.jobs.training_orders import PageTraining
from webapp.jobs.uploads import Uploads
from webapp.server import transport
from webapp.server.http_server import CLIENT_LEFT
from webapp.server.inbox import Inbox
from webapp.server.socket_io import SocketIO
from webapp.server.threads import in_thread
from webapp.server.websocket import WebSocket

if TYPE_CHECKING:
    from authlib.integrations.flask_client import FlaskOAuth2App

log = logging.getLogger("chatserver.web")

MAX_MESSAGE_OVERHEAD_BYTES = 65_536
MAX_IMPORT_MIB = 32  # of one file, which is read whole

Loop = Callable[[threading.Event], None]
"""Works until the event is set."""


class UndatedSessions(SecureCookieSessionInterface):
    """Flask's signed cookie, valid for as long as the browser keeps it.

    Flask would compare the date in the cookie with the clock of this process, and refuse a cookie of a process whose
    clock is ahead.
    """

    def open_session(self, app: Flask, request: Request) -> SecureCookieSession:
        serializer = self.get_signing_serializer(app)
        assert serializer is not None, "create_app sets the secret key"
        try:
            return self.session_class(serializer.loads(request.cookies.get(self.get_cookie_name(app), "")))
        except BadSignature:
            return self.session_class()

    def get_cookie_secure(self, app: Flask) -> bool:
        """A cookie that came over TLS never travels without it."""
        return browser_scheme(request.environ) == "https"


class ShallowJson(DefaultJSONProvider):
    """Flask's JSON. A body that is nested too deeply for its parser is the client's mistake and no failure of ours."""

    def loads(self, s: str | bytes, **options: Any) -> Any:
        try:
            return super().loads(s, **options)
        except RecursionError:
            raise InvalidRequest(
                "the JSON is nested too deeply; send lists and objects as the routes describe"
            ) from None


def create_app(
    settings: Settings, database: Database | None = None
) -> tuple[Flask, AnswerFeed, Relay, Inbox, list[Loop]]:
    """The Flask app, its feed and relay (not started), the inbox for the server, and what the process runs beside it.

    Whoever runs it has migrated the database.
    """
    max_message_bytes = 4 * settings.max_message_chars + MAX_MESSAGE_OVERHEAD_BYTES
    app = _make_app(settings, max_message_bytes)
    redis = connect(settings.redis_url, role="web")
    keys = Keys(settings.namespace)
    database = database or Database.of(settings)
    stored = _stored(settings, database)
    accounts = _add_accounts(app, settings, database, redis, keys, stored)
    disk = RedisDisk.of(settings.redis_url, settings.state_dir)
    requests = Requests.from_settings(redis, settings)
    archivist = Archivist(database, requests, in_thread)
    inbox = Inbox(settings.max_unread_mib * 1_048_576)
    socketio = _make_sockets(app, settings.allowed_origins, inbox, max_message_bytes)
    feed = AnswerFeed(
        requests, redis, spawn=socketio.start_background_task, waiting_for=partial(waiting_for, redis, keys)
    )
    relay = Relay(
        feed,
        partial(_emit, socketio),
        interval_s=settings.relay_interval_s,
        window_chars=settings.window_chars,
        spawn=socketio.start_background_task,
        ended=archivist.ended,
    )
    transport.guard(
        app,
        socketio,
        inbox=inbox,
        max_unsent_bytes=settings.max_unsent_mib * 1_048_576,
        max_user_sockets=settings.max_user_sockets,
        max_address_sockets=settings.max_address_sockets,
        address_of=address_of,
        drained=lambda session: relay.drained(socketio.server.manager.sid_from_eio_sid(session, "/")),
    )
    submit_rate = SubmitRate(settings.max_user_submits_per_minute, settings.max_address_submits_per_minute)
    open_sockets = OpenSockets(accounts, lambda sid: socketio.server.disconnect(sid))
    prompt_limits = PromptLimits(settings.max_message_chars, max_message_bytes)
    asker = Asker(database, requests, prompt_limits, in_thread, stored.conversations)
    ask = _ask_handler(asker, relay, submit_rate, settings.max_message_chars)
    sockets.register(
        socketio, requests, relay, disk, submit_rate, open_sockets, [ask], max_message_chars=settings.max_message_chars
    )
    app.register_blueprint(
        pages.make_blueprint(
            redis,
            keys,
            Newcomers(),
            disk,
            partial(in_thread, database.check),
            max_message_chars=settings.max_message_chars,
            max_message_bytes=max_message_bytes,
        )
    )
    _add_conversations(app, settings, database, requests, feed, submit_rate, stored.conversations)
    _add_arena(app, settings, redis, keys, database, requests, submit_rate, stored.conversations)
    _add_jobs(app, settings, redis, keys, max_body_bytes=max_message_bytes)
    _add_api(app, settings, redis, keys, feed, requests, submit_rate, accounts, stored)
    _add_admin(app, settings, database, redis, keys, requests, accounts, stored)
    answer_errors(app, disk)
    address, origins = settings.published_on or settings.host, listed_origins(settings.allowed_origins)
    app.wsgi_app = only_our_names(app.wsgi_app, address, origins)  # type: ignore[method-assign, assignment]
    loops: list[Loop] = [archivist.serve]
    if accounts is not None:
        loops.append(GroupLimits(accounts.groups, requests.quotas).serve)
    return app, feed, relay, inbox, loops


def _stored(settings: Settings, database: Database) -> Stored:
    """What users store, and their bounds."""
    files = StoredFiles(
        settings.state_dir / "files",
        max_bytes=settings.max_upload_mib * 1_048_576,
        room=UserRoom(settings.max_user_files, settings.max_user_files_mib * 1_048_576),
    )
    return Stored(StoredBytes(database, settings.max_user_conversations_mib * 1_048_576), files)


def _make_app(settings: Settings, max_message_bytes: int) -> Flask:
    """An app without routes: its JSON, its sessions and what Flask and webapp/access are told."""
    app = Flask(__name__)
    app.json = ShallowJson(app)
    app.session_interface = UndatedSessions()
    app.config.update(
        SECRET_KEY=settings.secret_key or kept_key(settings.state_dir / "secret_key"),
        SESSION_COOKIE_NAME="chatserver",
        SESSION_COOKIE_HTTPONLY=True,
        SESSION_COOKIE_SAMESITE="Lax",
        PERMANENT_SESSION_LIFETIME=datetime.timedelta(days=365),
        MAX_CONTENT_LENGTH=max_message_bytes,
        PUBLISHED_ON=settings.published_on,  # for webapp/access, as the next
        ALLOWED_ORIGINS=listed_origins(settings.allowed_origins),
        # A late answer to an earlier request would bring the cookie from before a sign-in back.
        SESSION_REFRESH_EACH_REQUEST=settings.accounts != "on",
    )
    return app


def _make_sockets(app: Flask, allowed_origins: str, inbox: Inbox, max_message_bytes: int) -> SocketIO:
    socketio = SocketIO(
        app,
        async_mode="gevent",  # never guessed: the guess prefers what is not maintained
        cors_allowed_origins=origin_check(allowed_origins),
        max_http_buffer_size=max_message_bytes,
        ping_interval=20,
        ping_timeout=20,
        async_handlers=False,  # `transport` says how many events of a socket are served at once
        logger=_library_log(),
        engineio_logger=_library_log(),
    )
    engine = socketio.server.eio
    engine._async = {**engine._async, "websocket": partial(WebSocket, inbox=inbox, too_large=too_large)}
    return socketio


def _emit(socketio: SocketIO, sid: str, event: str, payload: dict[str, Any]) -> bool:
    """What `socketio.server.emit(event, payload, to=sid)` sends; whether the socket has room for more.

    Without its search for rooms and binary parts: the packet of a Socket.IO event (2) in the default namespace. It
    halves the cost of a token.
    """
    engine = socketio.server.eio
    connection = socketio.server.manager.eio_sid_from_sid(sid, "/")
    session = engine.sockets.get(connection)
    if session is None:
        return True  # it has gone; `forget` comes
    engine.send(connection, "2" + orjson.dumps([event, payload]).decode())
    return bool(session.queue.has_room)


def _add_accounts(
    app: Flask, settings: Settings, database: Database, redis: Redis, keys: Keys, stored: Stored
) -> Accounts | None:
    """The accounts and their pages, where people sign in."""
    accounts = None
    if settings.accounts == "on":
        accounts = Accounts(database)
        app.register_blueprint(
            account_pages.make_blueprint(
                accounts,
                ApiKeys(redis, keys),
                SignInAttempts(redis, keys),
                Adoption(database),
                _provider(app, settings),
                stored,
                provider_signs_up=settings.oidc_sign_up,
            )
        )
    use_accounts(app, accounts)
    return accounts


def _provider(app: Flask, settings: Settings) -> "FlaskOAuth2App | None":
    """The provider through which people sign in, where one is set."""
    if not settings.oidc_issuer:
        return None
    from webapp.accounts.provider import provider_of  # here: Authlib takes 0.1 s of a start

    return provider_of(app, settings)


def _ask_handler(asker: Asker, relay: Relay, submit_rate: SubmitRate, max_chars: int) -> sockets.Handler:
    """The socket's `ask`."""

    def admit(user: str) -> str:
        address = address_of(request)
        submit_rate.admit(user, address)
        return address

    def watch(sid: str, rid: str, user: str, asked: ChatRequest | None) -> None:
        relay.watch(sid, rid, user, request=asked)

    return ask_handler(asker, admit=admit, check_room=relay.check_room, watch=watch, max_chars=max_chars)


def _add_conversations(
    app: Flask,
    settings: Settings,
    database: Database,
    requests: Requests,
    feed: AnswerFeed,
    submit_rate: SubmitRate,
    stored: StoredBytes,
) -> None:
    """Conversations: one, all of them as files, those that are shared, and what readers think of answers."""
    conversations = Conversations(database, stored.check)
    judging = feedback.make_blueprint(Feedback(database, stored.check), max_chars=settings.max_message_chars)
    app.register_blueprint(judging)

    def is_known(rid: str, owner: str) -> bool:
        with translated():
            head = requests.journal.head(rid)
        return head is not None and head.user == owner

    max_import_bytes = min(settings.max_upload_mib, MAX_IMPORT_MIB) * 1_048_576
    parts = (conversations, Search(database), Importer(database, is_known, stored))
    app.register_blueprint(exchange.make_blueprint(*parts, max_import_bytes=max_import_bytes))
    titler = Titler(conversations, requests, feed, in_thread, max_chars=settings.max_message_chars)
    app.register_blueprint(conversation_routes.make_blueprint(conversations, requests, titler, submit_rate))
    app.register_blueprint(shared.make_blueprint(conversations))


def _add_arena(
    app: Flask,
    settings: Settings,
    redis: Redis,
    keys: Keys,
    database: Database,
    requests: Requests,
    submit_rate: SubmitRate,
    stored: StoredBytes,
) -> None:
    """The arena, and the fine-tuning on what people preferred there and in their conversations."""
    chars = settings.max_message_chars
    battles = Battles(database, PromptLimits(chars, 4 * chars), stored)
    served = partial(served_names, redis, keys)
    arena = Arena(battles, requests, served, random.SystemRandom())
    app.register_blueprint(arena_routes.make_page())
    app.register_blueprint(
        arena_routes.make_blueprint(battles, arena, Standings(database), served, submit_rate, max_chars=chars)
    )
    jobs, trained = Jobs(redis, keys, job_key(settings)), TrainedModels(redis, keys)
    wake_pipelines = partial(wake_soon, waker(settings))
    app.register_blueprint(
        improvement_routes.make_blueprint(database, jobs, trained, settings.state_dir, wake_pipelines)
    )


def _add_jobs(app: Flask, settings: Settings, redis: Redis, keys: Keys, *, max_body_bytes: int) -> None:
    """The job pages: cleanings, fine-tunings, and serving what was trained."""
    uploads = Uploads(settings.state_dir / "uploads", max_bytes=settings.max_upload_mib * 1_048_576)
    page_jobs = PageJobs(uploads, settings.state_dir / "jobs", settings.recipes_dir, secret=app.config["SECRET_KEY"])
    jobs, trained, wake_pipelines = Jobs(redis, keys, job_key(settings)), TrainedModels(redis, keys), waker(settings)
    answers = TrainingAnswers(jobs, trained, Registry(redis, keys))
    app.register_blueprint(
        job_pages.make_blueprint(
            redis,
            jobs,
            page_jobs,
            JobFolders(settings.state_dir, jobs.signed),
            uploads,
            wake_pipelines,
            answers,
            max_body_bytes=max_body_bytes,
        )
    )
    page_training = PageTraining(settings.state_dir / "trained")
    previews = Previews(redis, keys, job_key(settings))
    app.register_blueprint(
        training_pages.make_blueprint(
            redis,
            jobs,
            page_jobs,
            page_training,
            trained,
            answers,
            wake_pipelines,
            previews,
            previewer(settings),
        )
    )


def _add_api(
    app: Flask,
    settings: Settings,
    redis: Redis,
    keys: Keys,
    feed: AnswerFeed,
    requests: Requests,
    submit_rate: SubmitRate,
    accounts: Accounts | None,
    stored: Stored,
) -> None:
    """The API of `/v1`, and what a user has used.

    The server that runs the application knows whether a client has left; another may not.
    """
    callers = Callers(ApiKeys(redis, keys), accounts, keys_required=settings.api_keys_required)
    document = Document()
    registry = Registry(redis, keys)
    completer = Completer(feed, requests, submit_rate, settings.relay_interval_s, registry.supports, _has_left)
    responder = Responder(
        feed,
        requests,
        submit_rate,
        settings.relay_interval_s,
        _has_left,
        Responses(requests, DeadLetters(redis, requests)),
        Custodian(feed),
        registry.sampling,
        registry.supports,
        settings.max_message_chars,
    )
    jobs = Jobs(redis, keys, job_key(settings))
    ordered = Batches(jobs, stored.files, settings.state_dir / "jobs", in_thread)
    wake_pipelines = partial(wake_soon, waker(settings))
    desk = FineTuningDesk(
        callers, jobs, FineTunings(jobs, stored.files, settings.state_dir), TrainedModels(redis, keys), wake_pipelines
    )
    parts = [
        models.make_blueprint(redis, keys, callers, document),
        completions.make_blueprint(callers, completer, document, max_chars=settings.max_message_chars),
        responses.make_blueprint(callers, responder, document),
        files.make_blueprint(callers, stored.files, document),
        batches.make_blueprint(
            callers,
            jobs,
            ordered,
            wake_pipelines,
            document,
            max_unfinished=settings.max_user_batches,
        ),
        fine_tunings.make_blueprint(desk, document),
    ]
    blueprints.register(app, parts, document, listed_origins(settings.allowed_origins))
    app.register_blueprint(usage.make_blueprint(requests.quotas, callers, stored))


def _add_admin(
    app: Flask,
    settings: Settings,
    database: Database,
    redis: Redis,
    keys: Keys,
    requests: Requests,
    accounts: Accounts | None,
    stored: Stored,
) -> None:
    """The admin page."""
    storage = Storage(settings.state_dir, database)
    app.register_blueprint(admin_pages.make_page(settings.flower_url))
    app.register_blueprint(admin_pages.make_api(redis, keys, requests, accounts, ApiKeys(redis, keys), storage, stored))


def _has_left(asked: Request) -> bool:
    return bool(asked.environ.get(CLIENT_LEFT, bool)())


def waker(settings: Settings) -> Callable[[str], None]:
    """A function that wakes the pipelines for a job. Where Celery cannot use this Redis, only a call of it raises."""
    celery = cache(lambda: make_celery(settings))
    return lambda jid: wake(celery(), jid)


def previewer(settings: Settings) -> Callable[[str], None]:
    """A function that has the pipelines make a preview. A call of it raises where they cannot be told."""
    celery = cache(lambda: make_celery(settings))
    return lambda pid: ask_preview(celery(), pid)


def _library_log() -> logging.Logger:
    """A logger for Socket.IO and Engine.IO: without one each writes its lines twice. Their warnings quote clients."""
    library = logging.getLogger("chatserver.web.socketio")
    library.setLevel(logging.ERROR)
    return library


def too_large(num_bytes: int, max_bytes: int) -> dict[str, Any]:
    """The error of a message that no socket reads."""
    return TooLarge(f"the message has {num_bytes:,} bytes; this server reads {max_bytes:,} at most").as_dict()


def listed_origins(text: str) -> set[str]:
    return {origin.strip().rstrip("/") for origin in text.split(",") if origin.strip()}


def origin_check(extra: str) -> Callable[[str, dict[str, Any]], bool]:
    """Who may open a socket: a page of this app's origin, or of an origin in `extra` (comma-separated)."""
    allowed = listed_origins(extra)

    def check(origin: str, environ: dict[str, Any]) -> bool:
        return origin in allowed or origin == f"{browser_scheme(environ)}://{environ.get('HTTP_HOST', '')}"

    return check
