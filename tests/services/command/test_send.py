"""Questions through pipes, answered by the real worker over the echo engine: output, exit codes, Ctrl-C."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest
import redis

from services.connection.embedded import EmbeddedServer
from services.machine.processes import end_tied, start_tied
from services.places import ROOT
from services.serving.overview import overview
from services.serving.registry import Registry
from services.wire.keys import Keys


@pytest.fixture
def variables(redis_server: EmbeddedServer, namespace: str) -> dict[str, str]:
    return {**os.environ, "REDIS_URL": redis_server.url, "CHATSERVER_NAMESPACE": namespace, "PYTHONPATH": str(ROOT)}


@pytest.fixture
def echo_worker(
    variables: dict[str, str], redis_client: redis.Redis, namespace: str, eventually: Callable[..., None]
) -> Iterator[None]:
    command = [sys.executable, "-m", "tests.stand_ins.synthetic_worker", "--rate", "50", "--chunk", "4"]
    process = start_tied(command, output=subprocess.DEVNULL, environment=variables)
    try:
        registry = Registry(redis_client, Keys(namespace))
        eventually(registry.workers, "the worker's presence", 30)
        yield
    finally:
        end_tied(process, signal.SIGTERM, 10)


def start(*arguments: str, variables: dict[str, str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "services.command", *arguments],
        env=variables,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


@pytest.mark.usefixtures("echo_worker")
def test_stdin_is_one_message_and_the_answer_is_all_of_stdout(variables: dict[str, str]) -> None:
    text = "one ä\n\ntwo 𝄞 \x1b[1m\nthree"
    with start("chat", variables=variables) as process:
        out, err = process.communicate(f"{text}\n".encode(), timeout=30)
    assert (process.returncode, out.decode(), err) == (0, f"{text}\n", b"")


@pytest.mark.usefixtures("echo_worker")
def test_a_model_is_asked_not_to_think(variables: dict[str, str]) -> None:
    with start("send", "<think>hm</think>4", "--no-thinking", variables=variables) as process:
        out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err) == (0, b"4\n", b"")


@pytest.mark.usefixtures("echo_worker")
def test_max_tokens_bounds_the_answer(variables: dict[str, str]) -> None:
    with start("send", "abcdefgh", "--max-tokens", "5", variables=variables) as process:
        out, _ = process.communicate(timeout=30)
    assert (process.returncode, out) == (0, b"abcde\n")


@pytest.mark.usefixtures("echo_worker")
def test_ctrl_c_cancels_the_answer_and_keeps_what_came(
    variables: dict[str, str], redis_client: redis.Redis, namespace: str, eventually: Callable[..., None]
) -> None:
    with start("send", "x" * 20_000, "--max-tokens", "20000", variables=variables) as process:
        assert process.stdout is not None and process.stderr is not None
        first = process.stdout.read(1)
        process.send_signal(signal.SIGINT)
        rest, err = process.stdout.read(), process.stderr.read()
        assert process.wait(30) == 130
    assert first == b"x" and 0 < len(rest) < 20_000
    assert b"(cancelled)" in err and b"Traceback" not in err
    keys = Keys(namespace)
    eventually(lambda: overview(redis_client, keys)["requests_in_flight"] == 0, "the end of the request")


@pytest.mark.usefixtures("echo_worker")
def test_an_answer_that_nobody_reads_any_more_is_cancelled(
    variables: dict[str, str], redis_client: redis.Redis, namespace: str, eventually: Callable[..., None]
) -> None:
    with start("send", "x" * 20_000, "--max-tokens", "20000", variables=variables) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.read(1)
        with contextlib.closing(process.stdout):
            pass
        assert process.wait(30) == 1
        assert b"Traceback" not in process.stderr.read()
    keys = Keys(namespace)
    eventually(lambda: overview(redis_client, keys)["requests_in_flight"] == 0, "the end of the request")
