"""Runs of the training program in processes of their own.

A run without a launcher is forked from a process that has imported what the program imports. Tests of Celery,
`torchrun` and the whole path start it as launchers do.
"""

import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, ClassVar, Protocol, TextIO

import pytest

from pipelines.training import __main__ as program
from pipelines.training.models import trained_tokenizer
from services.jobs.training import parse_event
from services.places import ROOT
from services.tokens.tokenization import ChatTokenizer

ENVIRONMENT = {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}


@dataclass(frozen=True)
class Material:
    """A tiny model, some conversations and a configuration that trains one on the other."""

    base: Path
    data: Path
    config: Path


class Program(Protocol):
    """What tests do to a process, as `subprocess.Popen` has it."""

    pid: int
    stdout: TextIO | None

    def poll(self) -> int | None: ...
    def wait(self) -> int: ...
    def send_signal(self, number: int) -> None: ...


@dataclass
class Run:
    """One start of the program. Lines are kept as they are read."""

    process: "Program"
    lines: list[str] = field(default_factory=list)

    def read(self) -> Iterator[dict[str, Any]]:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line.rstrip())
            event = parse_event(line)
            if event is not None:
                yield event

    def until(self, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """The first event that is wanted."""
        for event in self.read():
            if wanted(event):
                return event
        raise AssertionError(f"the run ended before:\n{self.text}")

    def terminate(self) -> None:
        os.kill(self.process.pid, signal.SIGTERM)

    def leave(self) -> None:
        """Nobody reads what it prints any more."""
        assert self.process.stdout is not None
        self.process.stdout.close()

    def end(self) -> int:
        """Its exit code, once it has ended and all lines are read."""
        for _ in self.read():
            pass
        return self.process.wait()

    @property
    def text(self) -> str:
        return "\n".join(self.lines)

    def events(self, kind: str) -> list[dict[str, Any]]:
        found = (parse_event(line) for line in self.lines)
        return [event for event in found if event is not None and event["event"] == kind]

    def losses(self) -> dict[int, float]:
        return {event["step"]: event["loss"] for event in self.events("step")}


def start(material: Material, out: Path, *settings: str, launcher: tuple[str, ...] = (), config: str = "") -> Run:
    """`settings` are FIELD=VALUE; `launcher` stands before the program."""
    arguments = ["--config", config or str(material.config), "--data", str(material.data), "--out", str(out)]
    for setting in settings:
        arguments += ["--set", setting]
    return Run(_launched(launcher, arguments) if launcher else ForkedProgram(arguments))


def _launched(launcher: tuple[str, ...], arguments: list[str]) -> "subprocess.Popen[str]":
    command = [sys.executable, *launcher, "-m", "pipelines.training", *arguments]
    environment = {**os.environ, **ENVIRONMENT}
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )


class ForkedProgram:
    """The program in a fork of the process that has imported its modules.

    `kill_all` ends those that a failed test has left: pytest would wait for their whole training at its own end.
    """

    _started: ClassVar[list["ForkedProgram"]] = []

    def __init__(self, arguments: list[str]) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["pipelines.training.trainer"])
        with pytest.MonkeyPatch.context() as patch:  # the first start begins the server, with this environment
            for name, value in ENVIRONMENT.items():
                patch.setenv(name, value)
            reader, writer = context.Pipe(duplex=False)
            self._process = context.Process(target=_run_program, args=(arguments, writer))
            self._process.start()
        self._started.append(self)
        writer.close()
        self.pid: int = self._process.pid or 0
        self.stdout: TextIO | None = os.fdopen(os.dup(reader.fileno()), encoding="utf-8")
        reader.close()

    @classmethod
    def kill_all(cls) -> None:
        while cls._started:
            process = cls._started.pop()._process
            if process.is_alive():
                process.kill()
                process.join()

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self) -> int:
        self._process.join()
        code = self._process.exitcode
        assert code is not None
        return code

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)


def _run_program(arguments: list[str], output: Connection) -> None:
    os.chdir(ROOT)
    for number in (1, 2):
        os.dup2(output.fileno(), number)
    output.close()
    sys.argv[1:] = arguments
    sys.exit(program.main())


def finished(material: Material, out: Path, *settings: str, launcher: tuple[str, ...] = ()) -> Run:
    """A run that has come to its end."""
    run = start(material, out, *settings, launcher=launcher)
    code = run.end()
    assert code == 0, run.text
    return run


def torchrun(num_processes: int) -> tuple[str, ...]:
    """As many processes as asked for, on a free port of this machine."""
    return ("-m", "pipelines.training.torchrun", "--standalone", "--nproc-per-node", str(num_processes))


def write_base(folder: Path, tokenizer: ChatTokenizer) -> None:
    """Two layers of random weights over this tokenizer."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=tokenizer.decoder().get_vocab_size(),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        tie_word_embeddings=True,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    trained_tokenizer(tokenizer).save_pretrained(folder)
