"""FastChat's cleaning programs in an environment of their own, timed. Used by bench/clean.py; alone:

    python -m bench.forerunner corpus.json --cores 0

The programs run unchanged as `python -m fastchat.data.…`, pinned to cores. (Their process pools start one process for
each core of the machine; pinning decides how many run at once.) The environment is made once, in about two minutes. It
has what the three programs import and no more: the tokenizer of `transformers` does without torch, and language
detection is polyglot on pycld2. PyICU has no wheel for Linux, so a compiler and ICU's headers are needed.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.system import unwind_on_sigterm
from services.errors import ConfigurationError
from services.machine.processes import end_tied, start_tied
from services.models.catalogue import resolve
from services.places import ROOT
from services.tokens.tokenization import load_tokenizer

ENVIRONMENT = ROOT / ".chatserver" / "bench" / "fschat"
# fschat's and polyglot's own lists would bring a web server, torch and numpy's past; what is used is here.
PROGRAMS = ("fschat==0.2.36", "polyglot==16.7.4")
LIBRARIES = (
    "markdownify==0.11.6",  # named in the source of clean_sharegpt
    "beautifulsoup4==4.15.0",
    "tqdm==4.70.1",
    "transformers==5.17.0",  # ours, so that both sides tokenize alike
    "tokenizers==0.23.3",
    "pycld2==0.42",
    "PyICU==2.17",
    "six==1.17.0",
)
BUILD_HINT = "building PyICU takes g++, pkg-config and ICU's headers (Debian: apt install g++ pkg-config libicu-dev)"

# The kernel counts the memory of whoever forks as its child's, so a small process forks, and not we.
METER = """
import json, resource, subprocess, sys, time
start = time.monotonic()
code = subprocess.call(sys.argv[2:])
wall_s = time.monotonic() - start
usage = resource.getrusage(resource.RUSAGE_CHILDREN)
with open(sys.argv[1], "w") as file:
    json.dump([wall_s, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024], file)
sys.exit(code)
"""


@dataclass(frozen=True)
class Measured:
    """One run of a program. On a busy machine `cpu_s` says more than `wall_s`."""

    wall_s: float
    cpu_s: float  # of all its processes
    peak_rss_bytes: int  # of its largest process
    words: str  # the end of what it printed


class Forerunner:
    """The three programs. `install` first; every path is given by the caller."""

    def __init__(self, environment: Path = ENVIRONMENT) -> None:
        self.environment = environment
        self._python = str(environment / "bin" / "python")

    @property
    def installed(self) -> bool:
        marker = self._marker()
        return marker.exists() and marker.read_text() == _wanted()

    def install(self) -> None:
        """Makes the environment unless it is there. Raises ConfigurationError when a package cannot be installed."""
        if self.installed:
            return
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(self.environment)], check=True)
        self._pip("--no-deps", *PROGRAMS)
        self._pip(*LIBRARIES)
        self._marker().write_text(_wanted())  # last: what is marked is complete

    def clean(self, source: Path, out: Path, cores: Sequence[int]) -> Measured:
        """HTML → markdown, roles, blocked words, duplicates."""
        return self._run("clean_sharegpt", ["--in-file", source, "--out-file", out], cores)

    def optional_clean(self, source: Path, out: Path, cores: Sequence[int], skip_language: str = "ko") -> Measured:
        """Without a language, and without long runs of a digit. The program knows one process only."""
        options = ["--skip-lang", skip_language, "--reduce-rep"]
        return self._run("optional_clean", ["--in-file", source, "--out-file", out, *options], cores)

    def split(self, source: Path, out: Path, cores: Sequence[int], tokenizer: Path, max_tokens: int = 2048) -> Measured:
        """Long conversations in pieces. `tokenizer` is a folder of `save_tokenizer`."""
        options = ["--model-name-or-path", tokenizer, "--max-length", max_tokens]
        return self._run("split_long_conversation", ["--in-file", source, "--out-file", out, *options], cores)

    def _run(self, program: str, options: Iterable[object], cores: Sequence[int]) -> Measured:
        return measured([self._python, "-m", f"fastchat.data.{program}", *map(str, options)], cores)

    def _pip(self, *arguments: str) -> None:
        command = [self._python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *arguments]
        answer = subprocess.run(command, capture_output=True, text=True, check=False)
        if answer.returncode:
            raise ConfigurationError(
                f"pip cannot install {' '.join(arguments)}; {BUILD_HINT}:\n{answer.stderr[-2000:]}"
            )

    def _marker(self) -> Path:
        return self.environment / "installed"


def measured(command: Sequence[str], cores: Sequence[int]) -> Measured:
    """Runs `command` on these cores. Raises RuntimeError with its last words when it fails."""
    pinned = ["taskset", "--cpu-list", ",".join(map(str, cores)), *command]
    environment = {**os.environ, "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}
    with tempfile.TemporaryFile() as output, tempfile.NamedTemporaryFile() as usage:
        process = start_tied(
            [sys.executable, "-c", METER, usage.name, *pinned], output=output.fileno(), environment=environment
        )
        try:
            process.wait()
        finally:
            end_tied(process, signal.SIGTERM, 5.0)
        output.seek(0)
        words = output.read().decode(errors="replace")[-2000:]
        if process.returncode:
            raise RuntimeError(f"{' '.join(command)} ended with {process.returncode}: {words}")
        return Measured(*json.loads(usage.read()), words)


def save_tokenizer(model: str, folder: Path) -> Path:
    """The tokenizer of `model` as a folder that any `transformers` loads. Returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    load_tokenizer(resolve(model)).decoder().save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "PreTrainedTokenizerFast"}))
    return folder


def _wanted() -> str:
    return "\n".join([sys.version, *PROGRAMS, *LIBRARIES])


def _run_all(source: Path, cores: Sequence[int], folder: Path) -> Iterable[tuple[str, Path, Measured]]:
    forerunner = Forerunner()
    forerunner.install()
    tokenizer = save_tokenizer("smollm2-135m", folder / "tokenizer")
    cleaned, kept, pieces = (folder / name for name in ("cleaned.json", "kept.json", "pieces.json"))
    yield "clean_sharegpt", source, forerunner.clean(source, cleaned, cores)
    yield "optional_clean", cleaned, forerunner.optional_clean(cleaned, kept, cores)
    yield "split_long_conversation", kept, forerunner.split(kept, pieces, cores, tokenizer)


def main() -> None:
    parser = argparse.ArgumentParser(description="Times the forerunner's cleaning programs, one after the other.")
    parser.add_argument("source", type=Path, help="a raw corpus, as `python -m bench.corpus` writes it")
    parser.add_argument("--cores", type=int, nargs="+", default=[0])
    given = parser.parse_args()
    unwind_on_sigterm()
    with tempfile.TemporaryDirectory(prefix="bench-forerunner-") as folder:
        for program, source, run in _run_all(given.source, given.cores, Path(folder)):
            size_mb = source.stat().st_size / 1e6
            print(
                f"{program:24} {size_mb:6.1f} MB  {run.wall_s:6.2f} s wall  {run.cpu_s:6.2f} s CPU  "
                f"{size_mb / run.wall_s:5.2f} MB/s  {run.peak_rss_bytes / 2**20:4.0f} MiB"
            )
            print("    " + run.words.strip().splitlines()[-1])


if __name__ == "__main__":
    main()
