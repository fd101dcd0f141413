"""What `sky check` says, in our words. (`tests/sky` runs the real one.)"""

import stat
from pathlib import Path

import pytest

from services.doctor import cloud
from services.machine.environments import Environment
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


class Installed(Environment):
    """An environment whose only program is ours."""

    def complete(self) -> bool:
        return self._python.with_name("sky").exists()

    def _make(self) -> None:
        self._run(["sh", "-c", "echo ERROR: no network; exit 1"])


def test_clouds_are_asked_only_when_that_was_wanted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    environment = Installed("sky", tmp_path / "env")
    program = tmp_path / "env-sky/bin/sky"
    program.parent.mkdir(parents=True)
    program.write_text("#!/bin/sh\necho '  GCP: enabled [compute, storage]'\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    level, message = only(cloud.check_cloud(ask=False, environment=environment))
    assert level == "note" and "--cloud" in message
    assert only(cloud.check_cloud(ask=True, environment=environment)) == ("ok", "SkyPilot can use: GCP")
    program.write_text("#!/bin/sh\nexec sleep 60\n")
    monkeypatch.setattr(cloud, "CHECK_TIMEOUT_S", 0.3)
    assert "did not end within 0.3 s" in only(cloud.check_cloud(ask=True, environment=environment))[1]


def test_a_skypilot_that_cannot_be_installed_is_a_warning_in_pips_words(tmp_path: Path) -> None:
    environment = Installed("sky", tmp_path / "env")
    assert "not installed yet" in only(cloud.check_cloud(ask=False, environment=environment))[1]
    level, message = only(cloud.check_cloud(ask=True, environment=environment))
    assert level == "warning" and message.endswith("cannot be made: ERROR: no network")
