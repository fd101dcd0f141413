"""An environment of its own for a package whose pins are not ours: a venv beside the one in which we run.

    sky = Environment("sky")            # the lines of requirements.txt with the marker: extra == "sky"
    sky.python()                        # its interpreter; the first call installs it and says so
    python -m services.machine.environments sky    # the same from the Makefile

`pipelines/launching/sky.py` and `services/doctor/cloud.py` use it. Of `.venv` the environment is `.venv-sky`, of an
image's `/opt/chatserver` it is `/opt/chatserver-sky`. The package's program of the same name is linked beside ours, so
whoever has `chatserver` on the PATH has `sky` there too.
"""

import contextlib
import re
import signal
import sys
import tempfile
from collections.abc import Callable, Sequence
from importlib.metadata import Distribution
from pathlib import Path

from services.errors import Unavailable
from services.machine.files import lock
from services.machine.processes import end_tied, start_tied
from services.places import REQUIREMENTS

PIP = ("-m", "pip", "install", "--quiet", "--disable-pip-version-check")
ABOUT = {"sky": "SkyPilot, about 500 MB, a minute or two"}


def _to_stderr(words: str) -> None:
    print(words, file=sys.stderr, flush=True)


class Environment:
    """The venv of one name. `prefix` is the environment beside which it lies; `say` is told of an installation."""

    def __init__(
        self,
        name: str,
        prefix: Path = Path(sys.prefix),
        requirements: Path = REQUIREMENTS,
        say: Callable[[str], None] = _to_stderr,
    ) -> None:
        self.name = name
        self.folder = prefix.with_name(f"{prefix.name}-{name}")
        self._prefix = prefix
        self._requirements = requirements
        self._say = say
        self._python = self.folder / "bin" / "python"
        self._site = self.folder / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}" / "site-packages"

    def python(self) -> Path:
        """Its interpreter. Raises Unavailable if the environment cannot be made."""
        try:
            if not self.complete():
                with lock(self.folder.with_name(f"{self.folder.name}.lock")):
                    if not self.complete():
                        self._make()
        except OSError as error:
            raise self._failed(str(error)) from None
        return self._python

    def complete(self) -> bool:
        """Whether every package is there as pinned."""
        return all(self._has(*re.sub(r"\[.*\]", "", pin).split("==")) for pin in self.pins())

    def _has(self, name: str, version: str) -> bool:
        """pip writes a package's RECORD when the package is whole."""
        found = Distribution.discover(name=name, path=[str(self._site)])
        return any(each.version == version and each.read_text("RECORD") for each in found)

    def pins(self) -> list[str]:
        """Its lines of requirements.txt, without the marker that keeps them out of our own environment."""
        marker = re.compile(rf"""([^\s;#]+)\s*;\s*extra\s*==\s*["']{re.escape(self.name)}["']""")
        lines = self._requirements.read_text("utf-8").splitlines()
        return [match[1] for line in lines if (match := marker.match(line))]

    def _make(self) -> None:
        self._say(f"installing once, into {self.folder}: {ABOUT.get(self.name, self.name)}")
        if not self._site.is_dir():
            self._run([sys.executable, "-m", "venv", "--clear", str(self.folder)])
        self._run([str(self._python), *PIP, *self.pins()])
        self._link()
        self._say(f"{self.folder} is ready")

    def _run(self, command: Sequence[str]) -> None:
        """The program ends with us, so the next try never meets one that still installs."""
        with tempfile.TemporaryFile() as output:
            process = start_tied(command, output=output)
            try:
                code = process.wait()
            finally:
                end_tied(process, signal.SIGTERM, 10)
            output.seek(0)
            said = output.read().decode(errors="replace")
        if code:
            raise self._failed(said)

    def _failed(self, said: str) -> Unavailable:
        last = ([line.strip() for line in said.splitlines() if line.strip()] or ["it said nothing"])[-1]
        again = f"{sys.executable} -m services.machine.environments {self.name}"
        return Unavailable(
            f"the environment {self.folder} cannot be made: {last[-500:]}",
            remedy=f"check the network, the disk and who owns the folder, then run `{again}`",
        )

    def _link(self) -> None:
        """What the user has put there stays."""
        program, link = self.folder / "bin" / self.name, self._prefix / "bin" / self.name
        if program.exists():
            with contextlib.suppress(OSError):
                link.symlink_to(program)


if __name__ == "__main__":
    Environment(sys.argv[1]).python()
