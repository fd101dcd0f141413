"""How a program of ours starts and ends: settings, log, `--check`, exit code. For `python -m workers` and `webapp`."""

import sys
import urllib.request
from collections.abc import Callable

from services.connection import translated
from services.errors import ChatServerError
from services.logs import configure_logging
from services.settings import Settings, load_settings


def run(name: str, serve: Callable[[Settings], None], check: Callable[[Settings], str]) -> int:
    """Exit code 0 after an orderly end; 1 with one line that says what is wrong.

    With `--check` it is the program's health probe instead: `check` says what is wrong, or nothing.
    """
    try:
        settings = load_settings()
        configure_logging(settings.log_format, settings.log_level)
        with translated():
            if sys.argv[1:] != ["--check"]:
                serve(settings)
                return 0
            wrong = check(settings)
    except ChatServerError as error:
        wrong = error.message
    print(f"{name}: {wrong}" if wrong else "ok", file=sys.stderr if wrong else sys.stdout)
    return 1 if wrong else 0


def asked(url: str, timeout_s: float) -> str:
    """For a health probe: empty when `url`, of this machine, answers 200, else what is wrong. No proxy is asked."""
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url, timeout=timeout_s) as answer:
            return "" if answer.status == 200 else f"{url} answers {answer.status}"
    except OSError as error:
        return f"{url}: {error}"
