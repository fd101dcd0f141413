"""What SkyPilot's answers mean to us: its states, its errors, its logs, its table of prices. No server is asked."""

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipelines.launching.sky import (
    CLUSTER_STATES,
    FAILURES,
    JOB_STATES,
    MANAGED_STATES,
    REMEDIES,
    REQUEST_STATES,
    Log,
    chosen,
    known_state,
    plain,
    spoken,
    translated_error,
    without_speaker,
)
from pipelines.launching.sky_pipe import SkyError
from services.errors import ConfigurationError, Unavailable
from services.jobs.training import parse_event

TABLE = """Considered resources (1 node):
------------------------------------------------------------------------------------------------
 INFRA             INSTANCE              vCPUs   Mem(GB)   GPUS          COST ($)   CHOSEN
------------------------------------------------------------------------------------------------
 AWS (us-east-1a)  p4de.24xlarge[Spot]   96      1152      A100-80GB:8   12.29         ✔
 GCP (us-east4)    a2-ultragpu-8g[Spot]  96      1360      A100-80GB:8   20.07
------------------------------------------------------------------------------------------------"""


ENUMS = {
    "ClusterStatus": CLUSTER_STATES,
    "JobStatus": JOB_STATES,
    "ManagedJobStatus": MANAGED_STATES,
    "RequestStatus": REQUEST_STATES,
}
ASKED = """
import json
from sky import ClusterStatus, JobStatus, exceptions
from sky.jobs import ManagedJobStatus
from sky.server.requests.requests import RequestStatus
enums = (ClusterStatus, JobStatus, ManagedJobStatus, RequestStatus)
print(json.dumps({
    "states": {enum.__name__: [member.value for member in enum] for enum in enums},
    "ended": {enum.__name__: [each.value for each in enum if each.is_terminal()] for enum in enums[1:3]},
    "kinds": {n: [k.__name__ for k in e.__mro__] for n, e in vars(exceptions).items() if isinstance(e, type)},
}))
"""


@pytest.fixture(scope="module")
def skypilot(sky_python: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What SkyPilot's own classes say: members of its enums, which of them are terminal, the bases of its errors."""
    environment = {**os.environ, "HOME": str(tmp_path_factory.mktemp("home"))}
    answer = subprocess.run([str(sky_python), "-c", ASKED], env=environment, capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(answer.stdout.splitlines()[-1])
    return found


def test_every_state_of_skypilot_is_known(skypilot: dict[str, Any]) -> None:
    """A new member of an enum is noticed here, not in the middle of somebody's run."""
    assert {name: set(members) for name, members in skypilot["states"].items()} == {
        name: set(states) for name, states in ENUMS.items()
    }


def test_states_say_ended_where_skypilot_says_terminal(skypilot: dict[str, Any]) -> None:
    ended = {"finished", "failed", "cancelled"}
    assert {name: set(members) for name, members in skypilot["ended"].items()} == {
        name: {status for status, state in ENUMS[name].items() if state in ended} for name in skypilot["ended"]
    }


def test_every_failure_has_a_sentence_and_a_remedy() -> None:
    failed = {status for states in (JOB_STATES, MANAGED_STATES) for status in states if states[status] == "failed"}
    assert failed == set(FAILURES)
    assert all(all(pair) for pair in FAILURES.values())


def test_a_state_that_nobody_knows_is_an_error_with_a_remedy() -> None:
    with pytest.raises(ConfigurationError, match=r"SkyPilot says DREAMING.*Remedy: install"):
        known_state(JOB_STATES, "DREAMING")


def test_every_error_that_has_a_remedy_exists_in_skypilot(skypilot: dict[str, Any]) -> None:
    assert [name for name in REMEDIES if name not in skypilot["kinds"]] == ["ImportError"]


def test_without_a_cloud_the_error_says_how_to_set_one_up() -> None:
    said = "Cloud access is not set up.\x1b[0m Run: sky check"
    error = translated_error(SkyError(["NoCloudAccessError", "Exception"], said))
    assert isinstance(error, ConfigurationError)
    assert "aws configure" in error.remedy and "sky check" in error.remedy and "\x1b" not in error.message


def test_a_base_class_gives_its_remedy(skypilot: dict[str, Any]) -> None:
    error = translated_error(SkyError(skypilot["kinds"]["StorageBucketGetError"], "no such bucket"))
    assert isinstance(error, ConfigurationError) and "check that the bucket exists" in error.remedy


def test_a_server_that_is_away_is_tried_again() -> None:
    error = translated_error(SkyError(["ApiServerConnectionError", "RuntimeError"], "http://127.0.0.1:1"))
    assert isinstance(error, Unavailable) and "sky api start" in error.remedy


def test_what_the_program_printed_is_read_without_skypilots_decorations() -> None:
    chunks = [
        "\x1b[2m├── \x1b[0mWaiting for task resources on 1 node.\n",
        "\x1b[36m(setup pid=8698)\x1b[0m Python 3.11.2\n\x1b[36m(train-x, pid=89",
        '58)\x1b[0m ::train {"event":"step","step":1}\n',
        None,
        "\x1b[36m(head, rank=0, pid=7)\x1b[0m (in brackets) 50%\r100%\n",
        "\x1b[36m(train-x, pid=8958)\x1b[0m half a li",
    ]
    lines = [without_speaker(line) for line in spoken(chunks).lines]
    assert lines[:2] == ["Python 3.11.2", '::train {"event":"step","step":1}']
    assert parse_event(lines[1]) == {"event": "step", "step": 1}
    assert lines[2:] == ["100%"], "half a line waits for its end"


HEAD = "├── Waiting for task resources on 1 node.\n└── Job started. Streaming logs...\n"
FIRST = "(setup pid=7) Python 3.11.2\n(train-x, pid=9) Going on from checkpoint-5.\n"
SECOND = "(train-x, pid=9) ::train {}\n"
END = "✓ Job finished (status: SUCCEEDED).\n"


@pytest.mark.parametrize(
    "answer",
    [
        HEAD + FIRST + SECOND + END,
        HEAD + FIRST + SECOND + END + "✓ Managed job finished: 1 (status: SUCCEEDED).\n",
        HEAD + FIRST + HEAD + FIRST + SECOND + END,
    ],
    ids=["whole", "of a managed job", "tried again without a word"],
)
def test_a_log_that_skypilot_began_to_tell_twice_is_read_once(answer: str) -> None:
    """A managed job that was recovered once had gone on three times from the same step: its read had broken off."""
    assert spoken([answer]) == Log((FIRST + SECOND).splitlines(), ended=True)


def test_a_read_that_breaks_off_does_not_wait_for_other_machines() -> None:
    def answer() -> Iterator[str]:
        yield HEAD + FIRST
        yield "The job cluster is preempted or failed.\n"
        pytest.fail("here SkyPilot waits until the job is recovered")

    assert spoken(answer()) == Log(FIRST.splitlines())


def test_a_log_that_is_not_there_yet_has_no_end() -> None:
    assert spoken(["Job 1 is already in terminal state SUCCEEDED. For more details, run: …\n"]) == Log([])


def test_the_choice_and_its_price_are_read_from_the_optimizers_table() -> None:
    assert chosen(TABLE) == ("AWS (us-east-1a) p4de.24xlarge[Spot] A100-80GB:8", 12.29)
    assert chosen("no resources") == ("", None)
    assert plain("\x1b[32m   ✔\x1b[0m") == "   ✔"
