"""Runs of the training program in processes of their own, as launchers start it."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipelines.training.models import trained_tokenizer
from services.jobs.training import parse_event
from services.places import ROOT
from services.tokens.tokenization import ChatTokenizer


@dataclass(frozen=True)
class Material:
    """A tiny model, some conversations and a configuration that trains one on the other."""

    base: Path
    data: Path
    config: Path


@dataclass
class Run:
    """One start of the program. Lines are kept as they are read."""

    process: "subprocess.Popen[str]"
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
    command = [sys.executable, *launcher, "-m", "pipelines.training"]
    command += ["--config", config or str(material.config), "--data", str(material.data), "--out", str(out)]
    for setting in settings:
        command += ["--set", setting]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        command, cwd=ROOT, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    return Run(process)


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
