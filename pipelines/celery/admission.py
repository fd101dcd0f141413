"""Which jobs the pipelines do: those that this installation signed, over inputs that its settings allow.

The tasks ask before each piece of work, since a job or a preview in Redis may be a stranger's.
"""

import logging
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Self

from services.errors import ConfigurationError
from services.jobs.jobs import Job, Jobs, unsigned
from services.jobs.previews import Preview, Previews
from services.machine.files import write
from services.settings import Settings, variable_of

log = logging.getLogger("chatserver.pipelines")

SIGNED = "jobs_signed"  # file of the state folder: older jobs were signed, once
LOCAL_SCHEMES = ("file", "local")  # fsspec's names for a path of this machine


class Admission:
    """Judges jobs. Without `roots` a job may read any file, without `schemes` any URL."""

    def __init__(self, roots: Sequence[Path] = (), schemes: Sequence[str] = ()) -> None:
        self._roots = [root.resolve() for root in roots]
        self._schemes = frozenset(schemes)

    @classmethod
    def from_settings(cls, settings: Settings) -> Self:
        return cls([Path(root) for root in _listed(settings.input_roots)], _listed(settings.input_schemes))

    def check(self, jobs: Jobs, job: Job, inputs: Iterable[str]) -> None:
        """Raises ConfigurationError for a job that must not be done."""
        if not jobs.signed(job):
            raise ConfigurationError(unsigned(job.id))
        for name in inputs:
            self._check_input(name)

    def check_preview(self, previews: Previews, preview: Preview) -> None:
        """Raises ConfigurationError for a preview that must not be made."""
        if not previews.signed(preview):
            raise ConfigurationError("the preview has no signature of this installation: press Preview again")
        for name in preview.spec["data"]:
            self._check_input(name)

    def _check_input(self, name: str) -> None:
        scheme, is_url, path = name.partition("://")
        if is_url and self._schemes and scheme not in self._schemes:
            allowed = ", ".join(sorted(self._schemes))
            raise ConfigurationError(
                f"the input {name} is not of a scheme that jobs may read ({allowed}); copy the file to where they may "
                f"read, or add {scheme!r} to {variable_of('input_schemes')} of the pipelines"
            )
        if is_url and scheme in LOCAL_SCHEMES:
            name, is_url = path, ""
        if not is_url and self._roots and not any(Path(name).resolve().is_relative_to(root) for root in self._roots):
            allowed = ", ".join(map(str, self._roots))
            raise ConfigurationError(
                f"the input {name} is in no folder that jobs may read ({allowed}); copy it there, or add its folder to "
                f"{variable_of('input_roots')} of the pipelines"
            )


def _listed(setting: str) -> list[str]:
    return [each.strip() for each in setting.split(",") if each.strip()]


def adopt_older_jobs(jobs: Jobs, state_dir: Path) -> None:
    """List what builds left that did not, at each start: an older one may have run again since the last. Sign what
    is not signed at the first start over a state folder alone: later, it is a stranger's."""
    if number := jobs.list_all_for_owners():
        log.info("%d jobs of an older build are in the lists of their users", number)
    marker = state_dir / SIGNED
    if marker.exists():
        return
    if number := jobs.sign_all():
        log.info("%d jobs of an older build are signed", number)
    state_dir.mkdir(parents=True, exist_ok=True)
    write(marker, b"")
