"""The `chatserver` command: one file for each subcommand, and the code that only they share. Entry point: `main`.

    chatserver up            everything on this machine        chatserver models     what is served, what was trained
    chatserver chat          talk in the terminal              chatserver status     queues, workers, requests
    chatserver send TEXT     one question                      chatserver dead       requests given up
    chatserver worker        one GPU process                   chatserver web        one web process
    chatserver clean …       conversations to training data    chatserver jobs …     cleaning on Celery: show, cancel
    chatserver pipelines …   worker and beat of Celery         chatserver doctor     what is wrong with an installation
    chatserver train …       fine-tuning                       chatserver keys …     keys of the API under /v1

The command talks to Redis directly. It starts the other programs as processes: nothing here imports them. Functions
import slow libraries inside themselves, so that `--help` is quick.
"""

import os
import sys
from collections.abc import Callable

from services.errors import ChatServerError


def main() -> None:
    """Run a subcommand and exit."""
    from services.command.application import application

    run_command(application)


def run_command(application: Callable[[], object]) -> None:
    """Exit codes of all commands: 0 done, 1 failed, 2 misuse or a wrong setting, 130 interrupted."""
    try:
        application()
    except ChatServerError as error:
        print(f"chatserver: {error} ({error.code})", file=sys.stderr)
        sys.exit(2 if error.code == "configuration" else 1)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:  # the reader of our output has left
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
