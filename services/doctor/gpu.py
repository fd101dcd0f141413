"""Checks the GPU: its driver, torch, flash-attn. A process of its own imports torch.

A GPU that a worker would not use, or on which it would die, is wrong. A machine without a GPU is not.
"""

import csv
import importlib.util
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from services.doctor.findings import Finding, note, ok, warning, wrong

NVIDIA_DEVICE = Path("/dev/nvidiactl")
SMI_TIMEOUT_S = 15.0
TORCH_TIMEOUT_S = 90.0  # its first import from a cold disk
LIMIT_S = SMI_TIMEOUT_S + TORCH_TIMEOUT_S + 10.0
FULL = 0.9
FLASH_ATTENTION_SINCE = (8, 0)  # compute capability
QUERY = ("name", "driver_version", "memory.total", "memory.used")

TORCH = """
import json, torch
told = {"version": torch.__version__, "cuda": torch.version.cuda or torch.version.hip or "", "devices": [], "error": ""}
try:
    if told["cuda"]:
        torch.cuda.init()
    for number in range(torch.cuda.device_count()):
        about = torch.cuda.get_device_properties(number)
        told["devices"].append({
            "name": about.name, "capability": [about.major, about.minor], "bytes": about.total_memory,
            "bf16": torch.cuda.is_bf16_supported(),
        })
        torch.zeros(8, device=f"cuda:{number}").sum().item()
except Exception as error:
    told["error"] = str(error).strip().split("\\n")[0]
try:
    import flash_attn
    told["flash_attn"] = ""
except ModuleNotFoundError as error:
    told["flash_attn"] = "missing" if error.name == "flash_attn" else str(error)
except Exception as error:
    told["flash_attn"] = str(error).strip().split("\\n")[0]
print(json.dumps(told))
"""


@dataclass(frozen=True)
class Gpu:
    """One GPU, as its driver describes it."""

    name: str
    driver: str
    total_mib: int
    used_mib: int


class DriverFailure(Exception):
    """`nvidia-smi` is installed and fails; the message is its output."""


def read_gpus() -> list[Gpu]:
    """The GPUs that `nvidia-smi` lists; empty without any. Raises DriverFailure."""
    program = shutil.which("nvidia-smi")
    if program is None:
        if NVIDIA_DEVICE.exists():
            raise DriverFailure("this machine has a GPU, but no nvidia-smi on the PATH")
        return []
    command = [program, f"--query-gpu={','.join(QUERY)}", "--format=csv,noheader,nounits"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=SMI_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired:
        raise DriverFailure(f"nvidia-smi did not answer within {SMI_TIMEOUT_S:g} s") from None
    except OSError as error:
        raise DriverFailure(f"nvidia-smi cannot be run: {error.strerror}") from None
    if answer.returncode:
        raise DriverFailure(" ".join((answer.stdout + answer.stderr).split())[:300] or f"code {answer.returncode}")
    return [
        _gpu(row) for row in csv.reader(answer.stdout.splitlines(), skipinitialspace=True) if len(row) == len(QUERY)
    ]


def _gpu(row: Sequence[str]) -> Gpu:
    """A number of the driver. For a part of a GPU (MIG) the driver gives no memory."""
    total, used = (int(text) if text.isdigit() else 0 for text in row[2:])
    return Gpu(row[0], row[1], total, used)


def read_torch() -> Mapping[str, Any]:
    """What torch reports in a process of its own; empty without torch. Raises DriverFailure when the process dies."""
    if importlib.util.find_spec("torch") is None:
        return {}
    command = [sys.executable, "-W", "ignore", "-c", TORCH]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=TORCH_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired:
        raise DriverFailure(f"importing torch and one sum on the GPU took longer than {TORCH_TIMEOUT_S:g} s") from None
    lines = answer.stdout.strip().splitlines()
    if answer.returncode or not lines:
        last = (answer.stderr.strip().splitlines() or ["no message"])[-1]
        raise DriverFailure(f"a process that imports torch ended with {answer.returncode}: {last[:300]}")
    return dict(orjson.loads(lines[-1]))


def check_gpu(
    weights_of: Callable[[], int] = lambda: 0,
    gpus_of: Callable[[], list[Gpu]] = read_gpus,
    torch_of: Callable[[], Mapping[str, Any]] = read_torch,
) -> Iterator[Finding]:
    """`weights_of` gives the bytes of the configured model's weights, 0 when unknown."""
    try:
        gpus = gpus_of()
    except DriverFailure as error:
        yield wrong(
            f"the NVIDIA driver fails: {error}", "reinstall the driver and reboot; `nvidia-smi` must list the GPU"
        )
        return
    if not gpus:
        yield note("this machine has no NVIDIA GPU: workers use the CPU engine")
        return
    for number, gpu in enumerate(gpus):
        memory = f", {gpu.used_mib:,} of {gpu.total_mib:,} MiB used" if gpu.total_mib else ""
        yield ok(f"GPU {number}: {gpu.name}, driver {gpu.driver}{memory}")
    yield from _torch(gpus, torch_of)
    yield from _fits(gpus, weights_of())


def _torch(gpus: list[Gpu], torch_of: Callable[[], Mapping[str, Any]]) -> Iterator[Finding]:
    try:
        told = torch_of()
    except DriverFailure as error:
        yield wrong(str(error), "reinstall torch: `pip install --force-reinstall torch`")
        return
    if not told:
        yield note(
            f"torch is not installed: no worker on this machine can use {gpus[0].name}",
            "pip install -r requirements.txt",
        )
    elif not told["cuda"]:
        yield wrong(
            f"torch {told['version']} is a build for CPUs: workers here do not use {gpus[0].name}",
            "install its CUDA build: `pip install --force-reinstall torch` without a CPU index, see pytorch.org",
        )
    elif told["error"] or not told["devices"]:
        why = told["error"] or "torch sees no GPU"
        yield wrong(
            f"torch {told['version']} (CUDA {told['cuda']}) cannot use {gpus[0].name}: {why}",
            f"the driver ({gpus[0].driver}) must know CUDA {told['cuda']}; look at CUDA_VISIBLE_DEVICES too",
        )
    else:
        yield from _devices(told)


def _devices(told: Mapping[str, Any]) -> Iterator[Finding]:
    yield ok(f"torch {told['version']} computes on it with CUDA {told['cuda']}")
    least = min(tuple(device["capability"]) for device in told["devices"])
    old = ".".join(map(str, least))
    if not all(device["bf16"] for device in told["devices"]) or least < FLASH_ATTENTION_SINCE:
        yield note(f"compute capability {old} has no fast bfloat16: workers take float16, fine-tuning wants newer")
    yield from _flash_attention(told["flash_attn"], least < FLASH_ATTENTION_SINCE, old)


def _flash_attention(said: str, too_old: bool, capability: str) -> Iterator[Finding]:
    """A worker uses flash-attn wherever it is installed."""
    if said == "missing":
        if not too_old:
            yield note("flash-attn is not installed: workers use sdpa", "pip install -e '.[gpu]' for speed")
    elif said:
        yield wrong(
            f"flash-attn is installed and cannot be imported: {said}",
            "build it for this torch: pip install --force-reinstall --no-build-isolation flash-attn, or uninstall it",
        )
    elif too_old:
        yield wrong(f"flash-attn cannot compute on compute capability {capability}", "pip uninstall flash-attn")
    else:
        yield ok("flash-attn is installed")


def _fits(gpus: list[Gpu], weights: int) -> Iterator[Finding]:
    largest = max(gpus, key=lambda gpu: gpu.total_mib)
    if weights and largest.total_mib and weights > FULL * largest.total_mib * 2**20:
        yield warning(
            f"the weights take {weights / 2**30:.1f} GiB, {largest.name} has {largest.total_mib / 1024:.1f} GiB",
            "take a smaller model or a larger GPU: a worker uses one",
        )
