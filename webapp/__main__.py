"""The web process: `python -m webapp`, or `chatserver web`. Settings come from the environment.

`python -m webapp --check` is its health probe: exit code 0 when the app on this machine is ready.
"""

from gevent import monkey

monkey.patch_all()  # before anything that opens a socket or makes a lock

import logging  # noqa: E402
import signal  # noqa: E402
import sys  # noqa: E402
import urllib.request  # noqa: E402

from services.connection import connect, wait_for_redis  # noqa: E402
from services.errors import ChatServerError  # noqa: E402
from services.logs import configure_logging  # noqa: E402
from services.settings import Settings, load_settings  # noqa: E402
from webapp.application import create_app  # noqa: E402

log = logging.getLogger("chatserver.web")


def serve(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT."""
    import gevent
    from gevent.pywsgi import WSGIServer

    app, _, relay = create_app(settings)
    server = WSGIServer((settings.host, settings.port), app, log=None)

    def stop() -> None:
        relay.stop()
        server.stop(timeout=1)

    for number in (signal.SIGTERM, signal.SIGINT):
        gevent.signal_handler(number, stop)
    server.start()
    log.info("listening on http://%s:%d", settings.host, server.server_port)
    gevent.spawn(wait_for_redis, connect(settings.redis_url, role="web"), log.warning)
    relay.start()
    server._stop_event.wait()


def check(settings: Settings) -> str:
    """Empty when the app of this machine is ready, else what is wrong."""
    host = "127.0.0.1" if settings.host in ("0.0.0.0", "::") else settings.host
    try:
        with urllib.request.urlopen(f"http://{host}:{settings.port}/readyz", timeout=5) as answer:
            return "" if answer.status == 200 else f"/readyz answers {answer.status}"
    except OSError as error:
        return f"/readyz on port {settings.port}: {error}"


def main() -> int:
    """Exit code 0 after an orderly end; 1 with one line that says what is wrong."""
    try:
        settings = load_settings()
        configure_logging(settings.log_format, settings.log_level)
        if sys.argv[1:] == ["--check"]:
            wrong = check(settings)
            print(wrong or "ok")
            return 1 if wrong else 0
        serve(settings)
    except ChatServerError as error:
        print(f"web: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
