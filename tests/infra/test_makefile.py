"""What `make run` installs on the machine of a user."""

import subprocess
import sys

import pytest

from services.places import ROOT


def installation(*variables: str) -> str:
    """The commands of the installation, which are not run."""
    command = ["make", "--dry-run", "--always-make", ".venv/.installed", *variables]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere PyPI's PyTorch has no CUDA")
def test_without_an_nvidia_driver_the_cpu_build_of_pytorch_comes_before_everything_else() -> None:
    """PyPI's brings CUDA, gigabytes that such a machine never uses."""
    (pinned,) = [line for line in (ROOT / "requirements.txt").read_text().splitlines() if line.startswith("torch==")]
    said = installation("NVIDIA_DRIVER=")
    from_pytorch = said.index(f"--index-url https://download.pytorch.org/whl/cpu {pinned}")
    assert from_pytorch < said.index("-r requirements.txt")
    assert "the CPU build" in said


@pytest.mark.parametrize("variables", [("NVIDIA_DRIVER=/usr/bin/nvidia-smi",), ("TORCH_INDEX=",)])
def test_with_a_driver_or_when_asked_pip_takes_pytorch_from_its_own_index(variables: tuple[str, ...]) -> None:
    said = installation(*variables)
    assert "--index-url" not in said and "-r requirements.txt" in said
