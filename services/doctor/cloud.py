"""Checks the clouds on which SkyPilot could start machines. Only with `--cloud`: `sky check` asks each of them."""

import importlib.util
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from services.doctor.findings import Finding, note, ok, warning, wrong

CHECK_TIMEOUT_S = 150.0
LIMIT_S = CHECK_TIMEOUT_S + 10.0
SET_UP = (
    "set up an account, such as with `aws configure` or `gcloud auth application-default login`, then run `sky check`"
)
_COLOUR = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
_ENABLED = re.compile(r"^ *(\S[^:\n]*): enabled \[([^\]\n]*)\]", re.MULTILINE)  # of each cloud: what it can be used for


def check_cloud(*, ask: bool) -> Iterator[Finding]:
    """`ask`: run `sky check`, which starts SkyPilot's API server where none runs."""
    if importlib.util.find_spec("sky") is None:
        yield note(
            "SkyPilot is not installed: fine-tunings run on this machine only", "pip install -r requirements.txt"
        )
    elif not ask:
        yield note("cloud accounts are not checked; `chatserver doctor --cloud` checks them")
    else:
        yield from _asked()


def _asked() -> Iterator[Finding]:
    beside = Path(sys.executable).with_name("sky")
    program = str(beside) if beside.exists() else shutil.which("sky")
    if program is None:
        yield wrong("SkyPilot is installed, but its command `sky` is missing", "pip install --force-reinstall skypilot")
        return
    try:
        answer = subprocess.run(
            [program, "check"], capture_output=True, text=True, timeout=CHECK_TIMEOUT_S, check=False
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
