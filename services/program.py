"""Starts and ends a program: reads the settings, sets up the log, waits for Redis, sets the exit code.

`python -m workers`, `webapp` and `pipelines` call it.
"""

import importlib.metadata
import logging
import signal
import sys
import threading
import urllib.request
from collections.abc import Callable
from concurrent import futures

from redis import Redis

from services.connection.connect import URL_VARIABLE, translated, wait_for_redis
from services.errors import ChatServerError
from services.logs import configure_logging
from services.machine.attempt import attempt
from services.machine.files import close_to_others
from services.machine.signals import hearing
from services.settings import Settings, load_settings

log = logging.getLogger("chatserver.program")

CHECK_S = 5.0


def build_version() -> str:
    """The version of this build of ChatServer; empty where it is not installed as a package."""
    try:
        return importlib.metadata.version("chatserver")
    except importlib.metadata.PackageNotFoundError:
        return ""


def run(name: str, serve: Callable[[Settings], None], check: Callable[[Settings], str], *, process: str = "") -> int:
    """Run a program. Exit code 0 after an orderly end; 1 after an error, which one line tells.

    With `--check` run its health probe instead: `check` returns what is wrong, or an empty text, within CHECK_S.
    Log lines name `process`, or else the program.
    """
    try:
        settings = load_settings()
        configure_logging(settings.log_format, settings.log_level, process=process or name)
        with translated():
            if sys.argv[1:] != ["--check"]:
                if opened := close_to_others(settings.state_dir):
                    log.warning(opened)
                serve(settings)
                return 0
            wrong = _found_wrong(lambda: check(settings))
    except ChatServerError as error:
        wrong = str(error)
    print(f"{name}: {wrong}" if wrong else "ok", file=sys.stderr if wrong else sys.stdout)
    return 1 if wrong else 0


def _found_wrong(check: Callable[[], str]) -> str:
    looked = attempt(check)
    if not futures.wait([looked], timeout=CHECK_S).done:
        return f"no answer within {CHECK_S:g} s; does Redis answer at REDIS_URL?"
    return looked.result()


def await_redis(client: Redis, say: Callable[[str], object], variable: str = URL_VARIABLE) -> None:
    """Block until Redis answers. SIGTERM or Ctrl-C meanwhile ends the program with SystemExit.

    Raises ConfigurationError when Redis refuses our credentials.
    """
    stop = threading.Event()
    with hearing((signal.SIGTERM, signal.SIGINT), lambda number: stop.set()):
        wait_for_redis(client, say, stop, variable)
    if stop.is_set():
        sys.exit(0)


def asked(url: str, timeout_s: float) -> str:
    """For a health probe: empty when `url` on this machine answers 200, else what is wrong. Uses no proxy."""
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url, timeout=timeout_s) as answer:
            return "" if answer.status == 200 else f"{url} answers {answer.status}"
    except OSError as error:
        return f"{url}: {error}"
