"""`chatserver up` with stand-ins for the two programs that it starts: order, restarts, reasons, signals.

`python -m workers` finds the stand-ins first because the command runs in the folder that holds them.
"""

import contextlib
import json
import os
import re
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import redis

from services.command.access import command_settings
from services.connection.connect import connect
from services.connection.embedded import PASSWORD_FILE, EmbeddedServer, running_url
from services.serving.trained_models import Claim, TrainedModel, TrainedModels
from services.wire.keys import Keys
from tests.faults.disk import SmallDisk

START_S = 60.0  # of a Redis that waits for room, and of what waits for it; the machine may be busy

WORKER = """
import os, secrets, signal, socket, sys, time
from services.connection.connect import connect
from services.connection.embedded import running_url
from services.wire.keys import Keys
from services.serving.registry import Registry, WorkerInfo
from services.settings import load_settings
from services.serving.trained_models import Claim, TrainedModels

if os.path.exists("broken"):
    sys.exit("the model is on strike")
over = []
signal.signal(signal.SIGTERM, lambda number, frame: over.append(number))
settings = load_settings()
registry = Registry(connect(settings.redis_url, role="worker"), Keys(settings.namespace))
wid = f"w{os.getpid()}"
model = settings.model
if sys.argv[1:2] == ["--standby"]:
    model = sys.argv[2]
    trained = TrainedModels(connect(settings.redis_url, role="worker"), Keys(settings.namespace))
    claim = Claim(model, f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}")
    while not over and not trained.keep_claim(claim):
        time.sleep(0.02)
    print("extra pid", os.getpid(), "for", model)
else:
    print("worker pid", os.getpid())
while not over or os.path.exists("stubborn"):
    now = time.time()
    host = socket.gethostname()
    registry.announce(WorkerInfo(wid, model, "none", 4, 0, 0.0, 100, host, os.getpid(), now, now))
    time.sleep(0.02)
registry.leave(wid)
if model != settings.model:
    trained.release(claim)
    print("extra drained")
else:
    print("worker drained")
"""

WEB = """
import signal, sys
from http.server import BaseHTTPRequestHandler, HTTPServer
from services.settings import load_settings

class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
    def log_message(self, *arguments):
        pass

def end(number, frame):
    print("web ended")
    sys.exit(0)

signal.signal(signal.SIGTERM, end)
settings = load_settings()
HTTPServer((settings.host, settings.port), Handler).serve_forever()
"""


class Up:
    """A running `chatserver up` and what it has printed."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.folder = folder
        self.process = subprocess.Popen(
            [sys.executable, "-m", "services.command", "up", "--model", "stand-in", "--port", "0", *options],
            cwd=folder,
            env={**os.environ, "CHATSERVER_DRAIN_S": "30"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self.lines: list[str] = []
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        self.lines.extend(iter(self.process.stdout.readline, ""))

    def has(self, pattern: str, times: int = 1) -> Callable[[], bool]:
        return lambda: len(re.findall(pattern, self.text)) >= times

    @property
    def text(self) -> str:
        return "".join(list(self.lines))

    def end(self) -> int:
        try:
            code = self.process.wait(60)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"it did not end:\n{self.text}") from None
        self._thread.join()
        return code


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Up]]:
    for name, source in (("workers", WORKER), ("webapp", WEB)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").touch()
        (tmp_path / name / "__main__.py").write_text(source)
    started: list[Up] = []

    def up(*options: str, pipelines: bool = False) -> Up:
        started.append(Up(tmp_path, *options, *([] if pipelines else ["--no-pipelines"])))
        return started[-1]

    yield up
    for one in started:
        with contextlib.suppress(ProcessLookupError):
            one.process.kill()
        one.end()
        assert one.process.stdout is not None
        one.process.stdout.close()


def lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def test_it_prints_the_address_when_usable_and_ends_in_order_without_error(
    start: Callable[..., Up], eventually: Callable[..., None]
) -> None:
    up = start("--workers", "2")
    eventually(up.has(r"open http://127\.0\.0\.1:\d+"), "the address")
    eventually(up.has(r"worker pid", times=2), "both workers")
    up.process.send_signal(signal.SIGINT)
    assert up.end() == 0
    assert "Traceback" not in up.text
    assert up.text.count("worker drained") == 2
    assert up.text.rindex("worker drained") < up.text.index("web ended")
    assert up.lines[-1].rstrip().endswith("ended")


def test_commands_find_its_redis_and_its_port_and_no_line_shows_the_password(
    start: Callable[..., Up], eventually: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`doctor` looked at port 8000, wherever the page was."""
    up = start()
    eventually(up.has(r"open http"), "the address")
    found = command_settings(state_dir=up.folder / ".chatserver")
    assert f"open http://127.0.0.1:{found.port} " in up.text
    assert command_settings(state_dir=up.folder / ".chatserver", port=8000).port == 8000
    password = urlsplit(found.redis_url).password
    assert password and password not in up.text
    up.process.send_signal(signal.SIGTERM)
    assert up.end() == 0 and password not in up.text


def test_a_state_folder_that_was_open_to_others_is_closed_with_a_line(
    start: Callable[..., Up], tmp_path: Path, eventually: Callable[..., None]
) -> None:
    (tmp_path / ".chatserver").mkdir(mode=0o755)
    up = start()
    eventually(up.has(r"open http"), "the address")
    assert up.text.count("was open to other users of this machine; now it has the mode 0700") == 1
    assert stat.S_IMODE((tmp_path / ".chatserver").stat().st_mode) == 0o700


def test_on_a_full_disk_it_waits_says_why_once_and_goes_on_when_there_is_room(
    start: Callable[..., Up], tmp_path: Path, eventually: Callable[..., None]
) -> None:
    """It ended with code 2, and room made later did not bring it back."""
    with SmallDisk(tmp_path / ".chatserver" / "redis", 200 << 20) as disk:
        disk.fill()
        up = start()
        eventually(up.has("Redis waits for room"), "the reason", START_S)
        disk.free()
        eventually(up.has(r"open http"), "the address", START_S)
        url = running_url(tmp_path / ".chatserver")
        assert url is not None
        eventually((disk.folder / "reserve").exists, "the reserve", START_S)
        disk.fill()
        (disk.folder / "reserve").unlink()  # not before: it would be made again while the disk is being filled
        disk.fill()
        with contextlib.closing(connect(url, role="test")) as client:
            eventually(lambda: refused(client), "the end of Redis", START_S)
            eventually(up.has("Redis waits for room", times=2), "the reason", START_S)
            disk.free()
            eventually(lambda: not refused(client), "its return", START_S)
        eventually(up.has("there is room again", times=2), "the word that it goes on", START_S)
        assert up.text.count("Redis waits for room") == 2
        up.process.send_signal(signal.SIGTERM)
        assert up.end() == 0


def test_a_signal_ends_it_while_it_waits_for_room(
    start: Callable[..., Up], tmp_path: Path, eventually: Callable[..., None]
) -> None:
    with SmallDisk(tmp_path / ".chatserver" / "redis", 20 << 20) as disk:
        disk.fill()
        up = start()
        eventually(up.has("Redis waits for room"), "the reason", START_S)
        up.process.send_signal(signal.SIGINT)
        assert up.end() == 0 and "Traceback" not in up.text


def test_a_signal_ends_it_while_redis_loads_its_data(
    start: Callable[..., Up], tmp_path: Path, eventually: Callable[..., None]
) -> None:
    with (
        EmbeddedServer(tmp_path / ".chatserver", appendfsync="no") as server,
        contextlib.closing(connect(server.url, role="test")) as client,
    ):
        pipe = client.pipeline(transaction=False)
        for number in range(20_000):
            pipe.set(f"key-{number}", "x")
        pipe.execute()
    included = server.folder / PASSWORD_FILE
    included.write_text("key-load-delay 10000\n" + included.read_text())  # 200 s in all: a setting for tests of Redis
    up = start()
    eventually(lambda: running_url(tmp_path / ".chatserver") is not None, "the start of Redis", START_S)
    up.process.send_signal(signal.SIGINT)
    assert up.end() == 0 and "Traceback" not in up.text
    assert running_url(tmp_path / ".chatserver") is None


def refused(client: redis.Redis) -> bool:
    """Whether Redis does not take a write."""
    try:
        client.rpush("list", "x" * 10_000)
    except redis.RedisError:
        return True
    return False


def test_the_pipelines_run_beside_the_chat_and_end_before_redis(
    start: Callable[..., Up], tmp_path: Path, eventually: Callable[..., None]
) -> None:
    up = start(pipelines=True)
    eventually(up.has(r"open http"), "the address")
    (tmp_path / "r.yaml").write_text("steps: [roles]")
    said = [{"from": "human", "value": "Is it clean?"}, {"from": "gpt", "value": "It is."}]
    (tmp_path / "in.json").write_text(json.dumps([{"id": "a", "conversations": said}]))
    submit = [sys.executable, "-m", "services.command", "clean", "submit", "r.yaml", "--in", "in.json", "--out", "out"]
    done = subprocess.run([*submit, "--wait"], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0 and "finished: 1 records read" in done.stdout, done.stderr
    for ready in (r"cleaner  \| .*cleaning with", r"trainer  \| .*looking after", r"beat     \| "):
        eventually(up.has(ready), ready, 60)  # Celery 5.6.3 prints a traceback where a signal ends its start
    up.process.send_signal(signal.SIGTERM)
    assert up.end() == 0
    assert "Traceback" not in up.text and "killed" not in up.text
    assert "terminate" not in up.text and "Cold shutdown" not in up.text, "Celery's words for a quiet end"


def test_a_worker_that_dies_is_started_again_and_a_line_says_so(
    start: Callable[..., Up], eventually: Callable[..., None]
) -> None:
    up = start()
    eventually(up.has(r"open http"), "the address")
    first = re.search(r"worker pid (\d+)", up.text)
    assert first is not None
    os.kill(int(first[1]), signal.SIGKILL)
    eventually(up.has(r"worker pid \d+", times=2), "the second worker")
    assert "worker-1 ended with signal SIGKILL; starting it again in 0.5 s" in up.text
    up.process.send_signal(signal.SIGTERM)
    assert up.end() == 0


def test_a_worker_that_cannot_start_stops_everything_with_its_reason(start: Callable[..., Up], tmp_path: Path) -> None:
    (tmp_path / "broken").touch()
    up = start()
    assert up.end() == 2
    assert "worker-1 died 3 times at the start; its last words:\n  the model is on strike" in up.text
    assert "Traceback" not in up.text


def trained_of(up: Up) -> TrainedModels:
    url = running_url(up.folder / ".chatserver")
    assert url is not None
    return TrainedModels(connect(url, role="test"), Keys("chatserver"))


def test_a_wanted_model_gets_a_worker_of_its_own_until_it_is_not_wanted(
    start: Callable[..., Up], eventually: Callable[..., None]
) -> None:
    up = start()
    eventually(up.has(r"open http"), "the address")
    trained = trained_of(up)
    for name in ("july", "august"):
        trained.register(TrainedModel(name, f"/{name}/model", "opt", name, 0.0))
    trained.serve("july")
    eventually(up.has(r"extra pid \d+ for july"), "the extra worker", timeout_s=60)
    trained.serve("august")  # one more at most, unless told otherwise
    trained.stop_serving("july")
    eventually(up.has("july is wanted no longer: extra-1 ends"), "its end")
    eventually(up.has("extra drained"), "its drain")
    eventually(up.has(r"extra pid \d+ for august"), "the next one's worker")
    up.process.send_signal(signal.SIGTERM)
    assert up.end() == 0
    assert up.text.index("extra drained") < up.text.index("for august")
    assert up.text.count("worker pid") == 1 and up.text.count("worker drained") == 1
    assert up.text.count("extra drained") == 2 and "Traceback" not in up.text and "killed" not in up.text


def test_an_extra_worker_that_dies_is_started_again(start: Callable[..., Up], eventually: Callable[..., None]) -> None:
    up = start()
    eventually(up.has(r"open http"), "the address")
    trained = trained_of(up)
    trained.register(TrainedModel("july", "/july/model", "opt", "july", 0.0))
    trained.serve("july")
    eventually(up.has(r"extra pid \d+ for july"), "the extra worker", timeout_s=60)
    found = re.search(r"extra pid (\d+)", up.text)
    assert found is not None
    os.kill(int(found[1]), signal.SIGKILL)
    eventually(up.has(r"extra pid \d+ for july", times=2), "the second", timeout_s=60)
    assert "extra-1 ended with signal SIGKILL; starting it again in 0.5 s" in up.text
    assert "served by another worker" not in up.text


def test_an_extra_worker_ends_when_another_machine_has_the_model(
    start: Callable[..., Up], eventually: Callable[..., None]
) -> None:
    up = start()
    eventually(up.has(r"open http"), "the address")
    trained = trained_of(up)
    trained.register(TrainedModel("july", "/july/model", "opt", "july", 0.0))
    trained.serve("july")
    eventually(up.has("july is wanted: extra-1 starts"), "the extra worker", timeout_s=60)
    while not trained.keep_claim(Claim("july", "elsewhere-1-abc")):  # as if that machine had been quicker
        trained.release(Claim("july", trained.loader("july")))
    eventually(up.has("july is served by another worker: extra-1 ends"), "its end")
    assert up.text.count("worker pid") == 1


def test_no_extra_worker_is_started_where_none_is_allowed(
    start: Callable[..., Up], eventually: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CHATSERVER_EXTRA_WORKERS", "0")
    up = start()
    eventually(up.has(r"open http"), "the address")
    trained = trained_of(up)
    trained.register(TrainedModel("july", "/july/model", "opt", "july", 0.0))
    trained.serve("july")
    first = re.search(r"worker pid (\d+)", up.text)
    assert first is not None
    os.kill(int(first[1]), signal.SIGKILL)
    eventually(up.has(r"worker pid", times=2), "a second of looking around")
    assert "july is wanted" not in up.text


def test_a_second_ctrl_c_kills_a_worker_that_does_not_drain(
    start: Callable[..., Up], tmp_path: Path, eventually: Callable[..., None]
) -> None:
    (tmp_path / "stubborn").touch()
    up = start()
    eventually(up.has(r"open http"), "the address")
    up.process.send_signal(signal.SIGINT)
    eventually(up.has("workers first"), "the drain")
    up.process.send_signal(signal.SIGINT)
    assert up.end() == 0
    assert "worker-1 did not end by itself; killed" in up.text


def test_nothing_outlives_it_when_it_is_killed(start: Callable[..., Up], eventually: Callable[..., None]) -> None:
    up = start()
    eventually(up.has(r"open http"), "the address")
    found = re.search(r"worker pid (\d+)", up.text)
    assert found is not None
    up.process.kill()
    eventually(lambda: not lives(int(found[1])), "the end of the worker")


def test_a_taken_port_is_named_at_once(start: Callable[..., Up], redis_server: object) -> None:
    port = str(redis_server.port)  # type: ignore[attr-defined]
    up = start("--port", port)
    assert up.end() == 2
    assert f"port {port} on 127.0.0.1 cannot be used: Address already in use" in up.text


def test_an_unknown_setting_stops_it_with_the_nearest_name(tmp_path: Path) -> None:
    answer = subprocess.run(
        [sys.executable, "-m", "services.command", "up"],
        cwd=tmp_path,
        env={**os.environ, "CHATSERVER_MODLE": "x"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer.returncode == 2
    assert "unknown setting CHATSERVER_MODLE; did you mean CHATSERVER_MODEL?" in answer.stderr
    assert "Traceback" not in answer.stderr
