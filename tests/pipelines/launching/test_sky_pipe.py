"""The pipe to SkyPilot's process: answers, streams, errors, deaths. Once with SkyPilot itself, elsewhere without it."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipelines.launching.sky import SkyPilot
from pipelines.launching.sky_pipe import PROGRAM, SkyError, SkyPipe
from services.errors import ConfigurationError, Unavailable
from services.machine.processes import is_alive
from services.places import ROOT
from tests.conftest import wait_until
from tests.infra.sky_tasks import CATALOG

STAND_IN = Path(__file__).with_name("sky_stand_in.py")


@pytest.fixture
def pipe() -> Iterator[SkyPipe]:
    pipe = SkyPipe(lambda: Path(sys.executable), STAND_IN)
    yield pipe
    pipe.close()


def test_calls_are_answered_one_after_another_by_one_process(pipe: SkyPipe) -> None:
    first = pipe.ask("pid")
    assert pipe.ask("echo", name="Ünicode", ids=[1, 2]) == {"name": "Ünicode", "ids": [1, 2]}
    assert pipe.ask("pid") == first != os.getpid()


def test_lines_are_streamed_before_the_result(pipe: SkyPipe) -> None:
    assert list(pipe.lines("count", upto=3)) == ["0\n", "1\n", "2\n"]
    assert pipe.ask("count", upto=3) is None


def test_an_error_comes_with_its_kinds_and_leaves_the_process_alone(pipe: SkyPipe) -> None:
    first = pipe.ask("pid")
    with pytest.raises(SkyError, match="no such cluster") as caught:
        pipe.ask("raise")
    assert caught.value.kinds == ["ClusterDoesNotExist", "ValueError"]
    assert pipe.ask("pid") == first


@pytest.mark.parametrize(("call", "how"), [("die", "was killed by signal 9"), ("leave", "ended with 3")])
def test_a_death_is_named_and_the_next_call_has_another_process(pipe: SkyPipe, call: str, how: str) -> None:
    first = pipe.ask("pid")
    with pytest.raises(Unavailable, match=f"{how} while it worked on `{call}`"):
        pipe.ask(call)
    assert pipe.ask("pid") != first


def test_a_process_that_died_between_two_calls_is_replaced(pipe: SkyPipe) -> None:
    first = pipe.ask("pid")
    os.kill(first, 9)
    os.waitid(os.P_PID, first, os.WEXITED | os.WNOWAIT)
    assert pipe.ask("pid") != first


def test_what_is_left_of_a_stream_is_never_the_next_answer(pipe: SkyPipe) -> None:
    lines = pipe.lines("count", upto=100_000)
    assert next(lines) == "0\n"
    lines.close()
    assert pipe.ask("echo", x=1) == {"x": 1}


ASKING = """
import sys
from pathlib import Path
from pipelines.launching.sky_pipe import SkyPipe
pipe = SkyPipe(lambda: Path(sys.executable), Path(sys.argv[1]))
print(pipe.ask("pid"), flush=True)
pipe.ask("hang")
"""


def test_skypilots_process_ends_with_the_one_that_asks(sky_python: Path, tmp_path: Path) -> None:
    """By SIGKILL, and in the middle of a call: here while SkyPilot is still imported."""
    asking = ASKING.replace(
        'print(pipe.ask("pid"), flush=True)', "pipe._running(); print(pipe._process.pid, flush=True)"
    )
    asking = asking.replace("lambda: Path(sys.executable)", f"lambda: Path({str(sky_python)!r})")
    asking = asking.replace('"hang"', '"clusters", names=None')
    environment = {**os.environ, "HOME": str(tmp_path), "SKYPILOT_API_SERVER_ENDPOINT": f"http://127.0.0.1:{_silent()}"}
    process = subprocess.Popen(
        [sys.executable, "-c", asking, str(PROGRAM)], cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    child = int(process.stdout.readline())
    process.kill()
    process.communicate()
    wait_until(lambda: not is_alive(child), "the end of SkyPilot's process", 20)


def _silent() -> int:
    """A port on which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


TASK: dict[str, Any] = {"name": "x", "resources": {"accelerators": "A100-80GB:8"}, "run": "true", "workdir": "/nowhere"}


def test_an_estimate_starts_no_api_server(sky_python: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SkyPilot's client starts one of 1.2 GB where none answers, and leaves it: for a dry run, nobody wants it."""
    port = _silent()
    catalogue = tmp_path / ".sky/catalogs/v8/common"
    catalogue.mkdir(parents=True)
    (catalogue / "accelerators.csv").write_text(CATALOG)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("SKYPILOT_DISABLE_USAGE_COLLECTION", "1")
    monkeypatch.setenv("SKYPILOT_API_SERVER_LOCAL_PORT", str(port))
    monkeypatch.delenv("SKYPILOT_API_SERVER_ENDPOINT", raising=False)
    pipe = SkyPipe(lambda: sky_python)
    with pytest.raises(ConfigurationError, match="Cloud access is not set up") as caught:
        SkyPilot(pipe).estimate(TASK)
    assert "aws configure" in caught.value.remedy
    pipe.close()
    mark = f"SKYPILOT_API_SERVER_LOCAL_PORT={port}".encode()
    assert not [pid for pid, environment in _environments() if mark in environment and pid != os.getpid()]


def _environments() -> Iterator[tuple[int, bytes]]:
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            yield int(path.parent.name), path.read_bytes()
        except OSError:
            continue


CALLS = """
import json, sys
sys.path.insert(0, sys.argv[1])
import inspect, sky_process
print(json.dumps({name: list(inspect.signature(call).parameters) for name, call in sky_process.CALLS.items()}))
"""


def test_both_sides_of_the_pipe_know_the_same_calls_and_arguments() -> None:
    """Neither side imports the other, so no type checker compares them."""
    served = subprocess.run(
        [sys.executable, "-P", "-c", CALLS, str(PROGRAM.parent)], capture_output=True, text=True, check=True
    )
    asked: dict[str, list[str]] = {}

    class Recorder(SkyPipe):
        def ask(self, call: str, **arguments: Any) -> Any:
            asked[call] = list(arguments)
            return {"clusters": {}, "launch_job": "", "launch_cluster": ""}.get(call, [])

        def lines(self, call: str, **arguments: Any) -> Any:
            asked[call] = list(arguments)
            return (line for line in ())

    sky = SkyPilot(Recorder(lambda: Path(sys.executable)))
    sky.estimate(TASK), sky.launch_cluster(TASK, "x", {}, None), sky.launch_job(TASK, "x", {}), sky.request("1")
    sky.cluster_launches("x"), sky.job_launches("x"), sky.failure("1"), sky.cancel_request("1"), sky.clusters()
    sky.cluster_jobs("x"), sky.cancel_cluster_jobs("x", [1]), sky.down("x"), sky.cluster_log("x", 1)
    sky.managed_jobs(), sky.cancel_jobs([1]), sky.job_log(1), sky.cost_usd(lambda name: True)
    assert asked == json.loads(served.stdout)
