"""What a program starts without: libraries that few of its runs need. Each of them took 0.05 to 0.3 s of a start."""

import subprocess
import sys

import pytest

from services.places import ROOT

OF_MIGRATIONS = {"alembic", "mako", "pygments"}
OF_A_PROVIDER = {"authlib", "joserfc"}
OF_SOCKET_IO = {"aiohttp", "tornado", "valkey"}  # it would load them where they are installed
OF_TASKS = {"sqlalchemy", "pipelines.cleaning", "pipelines.launching"}
STARTS = {
    "webapp.application": OF_MIGRATIONS | OF_A_PROVIDER | OF_SOCKET_IO | {"celery", "numpy"},
    "webapp.__main__": OF_MIGRATIONS | {"flask", "sqlalchemy", "celery"},  # the probe has no more than this
    "pipelines.__main__": OF_MIGRATIONS | OF_TASKS,  # nor have beat, Flower and their probes
    "pipelines.celery.tasks": OF_MIGRATIONS | {"numpy"},
}


@pytest.mark.parametrize("module", STARTS)
def test_a_start_loads_no_library_that_few_starts_need(module: str) -> None:
    code = f"import sys, {module}; print({STARTS[module]} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.stdout.strip() == "set()", done.stdout + done.stderr
