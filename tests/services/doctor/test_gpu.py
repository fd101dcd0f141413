"""GPUs that a worker would not use, told from machines that have none."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from services.doctor import gpu
from services.doctor.gpu import Gpu
from tests.services.doctor.told import only, told

H200 = Gpu("NVIDIA H200", "580.12", 143_771, 12)
TORCH = {"version": "2.13.0", "cuda": "13.0", "error": "", "flash_attn": "missing"}


def device(*capability: int) -> dict[str, Any]:
    return {"name": "x", "capability": list(capability), "bytes": 1, "bf16": capability >= (8, 0)}


def checked(torch: Mapping[str, Any], weights: int = 0) -> list[tuple[str, str]]:
    return told(gpu.check_gpu(lambda: weights, lambda: [H200], lambda: torch))


@pytest.fixture
def smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A driver's program at the head of the PATH."""
    path = tmp_path / "nvidia-smi"
    path.write_text("#!/bin/sh\necho 'NVIDIA A10, 550.90, 23028, 5'\necho 'NVIDIA A100 MIG, 550.90, [N/A], [N/A]'\n")
    path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    return path


def test_a_machine_without_a_gpu_is_a_note(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(gpu, "NVIDIA_DEVICE", tmp_path / "none")
    assert only(gpu.check_gpu()) == ("note", "this machine has no NVIDIA GPU: workers use the CPU engine")


def test_the_driver_is_read(smi: Path) -> None:
    assert gpu.read_gpus() == [Gpu("NVIDIA A10", "550.90", 23028, 5), Gpu("NVIDIA A100 MIG", "550.90", 0, 0)]


def test_a_torch_that_cannot_use_the_gpu_is_wrong(smi: Path) -> None:
    """With the torch that is installed here, in a process of its own: it finds no device, or is a build for CPUs."""
    found = told(gpu.check_gpu())
    assert found[0] == ("ok", "GPU 0: NVIDIA A10, driver 550.90, 5 of 23,028 MiB used")
    level, message = found[2]
    assert level == "wrong" and message.startswith("torch ")
    assert "is a build for CPUs: workers here do not use NVIDIA A10" in message or "cannot use NVIDIA A10" in message


def test_a_driver_that_fails_or_hangs_is_wrong_in_its_own_words(smi: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    smi.write_text("#!/bin/sh\necho 'Failed to initialize NVML: Driver/library version mismatch'\nexit 18\n")
    level, message = only(gpu.check_gpu())
    assert level == "wrong" and "version mismatch" in message
    smi.write_text("#!/bin/sh\nexec sleep 60\n")
    monkeypatch.setattr(gpu, "SMI_TIMEOUT_S", 0.3)
    assert "did not answer within 0.3 s" in only(gpu.check_gpu())[1]
    smi.unlink()
    monkeypatch.setattr(gpu, "NVIDIA_DEVICE", smi.parent)
    assert "no nvidia-smi on the PATH" in only(gpu.check_gpu())[1]


def test_a_sound_gpu_is_ok() -> None:
    found = checked({**TORCH, "devices": [device(9, 0)], "flash_attn": ""})
    assert [level for level, _ in found] == ["ok", "ok", "ok"]
    assert ("ok", "torch 2.13.0 computes on it with CUDA 13.0") in found


@pytest.mark.parametrize(
    ("torch", "level", "words"),
    [
        ({}, "note", "torch is not installed"),
        ({"devices": []}, "wrong", "cannot use NVIDIA H200: torch sees no GPU"),
        ({"devices": [], "error": "driver too old"}, "wrong", "cannot use NVIDIA H200: driver too old"),
        ({"devices": [device(9, 0)]}, "note", "flash-attn is not installed"),
        ({"devices": [device(9, 0)], "flash_attn": "undefined symbol: _ZN3c10"}, "wrong", "undefined symbol"),
        ({"devices": [device(7, 5)], "flash_attn": ""}, "wrong", "flash-attn cannot compute on compute capability 7.5"),
        ({"devices": [device(7, 5)]}, "note", "compute capability 7.5 has no fast bfloat16"),
    ],
)
def test_each_way_not_to_use_a_gpu_is_told(torch: dict[str, Any], level: str, words: str) -> None:
    found = checked({**TORCH, **torch} if torch else {})
    assert any(each == level and words in message for each, message in found), found


def test_weights_larger_than_the_gpu_are_a_warning() -> None:
    found = checked({**TORCH, "devices": [device(9, 0)], "flash_attn": ""}, weights=150 * 2**30)
    assert found[-1][0] == "warning" and "150.0 GiB" in found[-1][1]
