"""Checks the clouds on which SkyPilot could start machines. Only with `--cloud`: `sky check` asks each of them."""

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

from services.doctor.findings import Finding, note, ok, warning, wrong
from services.errors import Unavailable
from services.machine.environments import Environment

INSTALL_TIMEOUT_S = 600.0  # of SkyPilot's environment, once
CHECK_TIMEOUT_S = 150.0
LIMIT_S = INSTALL_TIMEOUT_S + CHECK_TIMEOUT_S
SET_UP = (
    "set up an account, such as with `aws configure` or `gcloud auth application-default login`, then run `sky check`"
)
_COLOUR = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
_ENABLED = re.compile(r"^ *(\S[^:\n]*): enabled \[([^\]\n]*)\]", re.MULTILINE)  # of each cloud: what it can be used for


def check_cloud(*, ask: bool, environment: Environment | None = None) -> Iterator[Finding]:
    """`ask`: run `sky check`, which starts SkyPilot's API server where none runs. SkyPilot is installed for that."""
    environment = environment or Environment("sky")
    if ask:
        try:
            program = environment.python().with_name("sky")
        except Unavailable as error:
            yield warning(error.message, error.remedy)
            return
        yield from _asked(program)
    elif environment.complete():
        yield note("cloud accounts are not checked; `chatserver doctor --cloud` checks them")
    else:
        yield note("SkyPilot is not installed yet; the first command with `--on sky` or `--cloud` installs it")


def _asked(program: Path) -> Iterator[Finding]:
    try:
        answer = subprocess.run(
            [str(program), "check"], capture_output=True, text=True, timeout=CHECK_TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired:
        yield wrong(
            f"`sky check` did not end within {CHECK_TIMEOUT_S:g} s", "run `sky api stop`, then `sky check` by hand"
        )
        return
    yield from read_check(_COLOUR.sub("", answer.stdout + answer.stderr), answer.returncode)


def read_check(said: str, code: int) -> Iterator[Finding]:
    """The findings in the output of `sky check`."""
    enabled = sorted({match[1] for match in _ENABLED.finditer(said) if "compute" in match[2]})
    if enabled:
        yield ok(f"SkyPilot can use: {', '.join(enabled)}")
    elif code:
        last = (said.strip().splitlines() or ["nothing"])[-1].strip()
        yield warning(f"`sky check` ends with {code}: {last[:300]}", SET_UP)
    else:
        yield warning("no cloud is set up: fine-tunings run on this machine only", SET_UP)
