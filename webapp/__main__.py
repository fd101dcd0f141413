"""The web process: `python -m webapp`, or `chatserver web`. Settings come from the environment.

`python -m webapp --check` is its health probe: exit code 0 when the app on this machine is ready.
"""

import gc

from gevent import monkey

gc.disable()  # until `serve` has made everything, which stays: a start would spend an eighth of its time on it
# Before anything that opens a socket or makes a lock. Threads log too, and one that waits for gevent's may never wake.
monkey.patch_thread(logging=False)
monkey.patch_all(thread=False)

import logging  # noqa: E402
import signal  # noqa: E402
import sys  # noqa: E402
import threading  # noqa: E402
from typing import TYPE_CHECKING  # noqa: E402

from redis.exceptions import RedisError  # noqa: E402

from services.accounts.exposure import check_exposure  # noqa: E402
from services.connection.connect import connect, wait_for_redis  # noqa: E402
from services.errors import ConfigurationError, Unavailable  # noqa: E402
from services.program import asked, run  # noqa: E402
from services.settings import Settings  # noqa: E402

if TYPE_CHECKING:
    from services.jobs.jobs import Jobs

log = logging.getLogger("chatserver.web")


def serve(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT."""
    check_exposure(settings)
    import gevent

    from services.database.database import Database
    from services.database.schema import migrate_when_there
    from services.jobs.jobs import Jobs
    from services.wire.keys import Keys
    from webapp.access.address import internet_address
    from webapp.api.files import UPLOAD_PATH
    from webapp.application import create_app  # not for the probe, which runs every few seconds
    from webapp.conversations.exchange import IMPORT_PATH
    from webapp.server import threads
    from webapp.server.http_server import Server

    database, stopping = Database.of(settings), threading.Event()
    app, feed, relay, inbox, loops = create_app(settings, database)
    threads.prepare()
    gc.freeze()  # what was imported and made so far
    gc.enable()
    server = Server(
        (settings.host, settings.port),
        app,
        inbox,
        max_body_bytes=app.config["MAX_CONTENT_LENGTH"],
        internet_address=internet_address,
        max_address_connections=2 * settings.max_address_sockets,  # a page has requests beside its socket
        streamed_paths={UPLOAD_PATH, IMPORT_PATH},
    )

    def stop() -> None:
        stopping.set()
        relay.stop()
        feed.stop()
        server.stop(timeout=1)

    for number in (signal.SIGTERM, signal.SIGINT):
        gevent.signal_handler(number, stop)
    if not migrate_when_there(database, log.warning, stopping):
        return
    try:
        server.start()
    except OSError as error:
        raise ConfigurationError(f"port {settings.port} on {settings.host}: {error.strerror}; choose another") from None
    log.info("listening on http://%s:%d", settings.host, server.server_port)
    feed.start()
    relay.start()
    for loop in loops:
        gevent.spawn(loop, stopping)
    # Wrong credentials end it; a Redis that is not there yet does not.
    redis = connect(settings.redis_url, role="web")
    if wait_for_redis(redis, log.warning, stopping):
        _list_jobs_of_older_builds(Jobs(redis, Keys(settings.namespace)))
    server._stop_event.wait()


def _list_jobs_of_older_builds(jobs: "Jobs") -> None:
    """Each in the list of its user. The pipelines do it too, but may start later, or never."""
    try:
        jobs.list_all_for_owners()
    except (Unavailable, RedisError) as error:
        log.warning("jobs of an older build may be missing in their users' lists until a restart: %s", error)


def check(settings: Settings) -> str:
    """Empty when the app of this machine is ready, else what is wrong."""
    host = "127.0.0.1" if settings.host in ("0.0.0.0", "::") else settings.host
    return asked(f"http://{host}:{settings.port}/readyz", timeout_s=4)


if __name__ == "__main__":
    sys.exit(run("web", serve, check))
