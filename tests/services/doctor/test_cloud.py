"""What `sky check` says, in our words. (`tests/sky` runs the real one.)"""

import importlib.util
import stat
import sys
from pathlib import Path

import pytest

from services.doctor import cloud
from tests.services.doctor.told import only

# As SkyPilot 0.14.1 prints it, without its colours.
SAID = """Checking credentials to enable infra for SkyPilot.
  AWS: enabled [compute, storage]
  Azure: disabled 
    Reason [compute, storage]: ~/.azure/msal_token_cache.json does not exist. Run the following commands:
      $ az login
  HuggingFace: enabled [storage]
  Slurm: enabled [compute]
    Allowed clusters:
    └── lab: enabled.
"""  # noqa: W291


def test_clouds_that_can_compute_are_listed() -> None:
    assert only(cloud.read_check(SAID, 0)) == ("ok", "SkyPilot can use: AWS, Slurm")


def test_no_cloud_is_a_warning_and_a_failure_is_in_its_own_words() -> None:
    assert only(cloud.read_check(SAID.replace("enabled", "disabled"), 1))[0] == "warning"
    level, message = only(cloud.read_check("Error: no API server\n", 2))
    assert level == "warning" and message == "`sky check` ends with 2: Error: no API server"


def test_clouds_are_asked_only_when_that_was_wanted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if importlib.util.find_spec("sky") is None:
        pytest.skip("SkyPilot is not installed")
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    program = tmp_path / "sky"
    program.write_text("#!/bin/sh\necho '  GCP: enabled [compute, storage]'\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    assert only(cloud.check_cloud(ask=False))[0] == "note"
    assert only(cloud.check_cloud(ask=True)) == ("ok", "SkyPilot can use: GCP")
    program.write_text("#!/bin/sh\nexec sleep 60\n")
    monkeypatch.setattr(cloud, "CHECK_TIMEOUT_S", 0.3)
    assert "did not end within 0.3 s" in only(cloud.check_cloud(ask=True))[1]
