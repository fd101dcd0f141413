"""The harness itself: orders are obeyed, clients read what the journal says, cuts fall where they should."""

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.end_to_end.system import wait_until
from tests.faults.answers import problems, text_in
from tests.faults.system import FaultSystem, fault_system
from tests.faults.tabs import Behaviour, Question, Reading, Tab, Terminal


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory, redis_binary: Path) -> Iterator[FaultSystem]:
    folder = tmp_path_factory.mktemp("faults")
    with fault_system(folder, num_workers=2, worker_options=("--rate", "40"), binary=redis_binary) as made:
        yield made


@pytest.fixture
def tab(system: FaultSystem) -> Iterator[Tab]:
    made = Tab("tab", [part.url for part in system.of_kind("web")])
    yield made
    made.close()


@pytest.fixture
def terminal(system: FaultSystem) -> Iterator[Terminal]:
    made = Terminal("terminal", system.client_proxy().url, system.keys)
    yield made
    made.close()


def soon() -> float:
    return time.monotonic() + 20


def ended(system: FaultSystem, reading: Reading) -> tuple[str, str]:
    """Status and code; the reading must be that of a sound journal."""
    read = system.journal.read(reading.rid)
    assert read is not None and reading.breaches == [] and len(reading.done) == 1, reading.trace
    assert problems(reading.rid, read[1]) == [] and text_in(read[1]) == reading.text
    return reading.done[0]["status"], reading.done[0]["code"]


@pytest.mark.parametrize(
    ("order", "end"),
    [
        ("hello", ("finished", "length")),
        ("raise@5", ("failed", "engine_error")),
        ("oom@0", ("failed", "out_of_memory")),
        ("hang@5", ("finished", "length")),
        ("die@5", ("finished", "length")),
    ],
)
def test_an_order_is_obeyed_and_its_neighbour_answered(
    system: FaultSystem, tab: Tab, terminal: Terminal, order: str, end: tuple[str, str]
) -> None:
    name = order.partition("@")[0]
    assert ended(system, tab.run(Question(f"{name}-1", order, 30), Behaviour(), soon())) == end
    assert ended(system, terminal.run(Question(f"{name}-2", "hello", 20), Behaviour(), soon())) == (
        "finished",
        "length",
    )
    head = system.journal.head(f"{name}-1")
    assert head is not None and head.begins == (2 if name in ("hang", "die") else 1)


@pytest.mark.parametrize(
    "behaviour", [Behaviour(slow_s=0.3), Behaviour(second_tab=True), Behaviour(twice=True), Behaviour(cancel_after=20)]
)
def test_a_tab_reads_the_whole_answer_whatever_its_habits(system: FaultSystem, tab: Tab, behaviour: Behaviour) -> None:
    rid = f"habit-{abs(hash(behaviour))}"
    reading = tab.run(Question(rid, "hello", 100), behaviour, soon())
    assert ended(system, reading)[0] == ("cancelled" if behaviour.cancel_after else "finished")
    for other in tab.readings:
        assert ended(system, other) == ended(system, reading)
    assert len(tab.readings) == (2 if behaviour.second_tab else 1)


def test_a_tab_goes_to_the_other_web_process_and_resumes(system: FaultSystem, tab: Tab) -> None:
    first = system.parts["web-0"]
    point = first.proxy.after_commands(
        3, lambda: system.send_signal(first.name, signal.SIGKILL), mentioning=b"{resumed}"
    )
    reading = tab.run(Question("resumed", "hello", 60), Behaviour(), soon())
    assert point.reached.is_set() and ended(system, reading)[0] == "finished"
    system.start_part(first.name)
    system.ready(first.name)


def test_the_owner_is_killed_and_the_answer_goes_on(system: FaultSystem, terminal: Terminal) -> None:
    question = Question("owned", "hello", 80)
    terminal.run(question, Behaviour(vanish=True), soon())
    owner = wait_until(lambda: system.owner("owned"), "a begin")
    system.send_signal(owner.name, signal.SIGKILL)
    assert ended(system, terminal.run(question, Behaviour(), soon()))[0] == "finished"
    system.start_part(owner.name)
    system.ready(owner.name)


def test_redis_loses_exactly_what_was_cut(system: FaultSystem, terminal: Terminal) -> None:
    reading = terminal.run(Question("kept", "hello", 5), Behaviour(), soon())
    terminal.run(Question("half", "hello", 5), Behaviour(), soon())
    cut = system.aof_offset_before(b"{half}:state")
    assert 0 < cut < system.aof_size()
    loss = system.kill_redis(cut + 10)  # inside the transaction, which is lost whole
    assert loss.of("half") and loss.end_of("half") and not loss.of("kept")
    assert system.journal.head("half") is None
    assert ended(system, reading)[0] == "finished"


def test_the_idle_level_is_reached_and_what_is_left_over_is_named(system: FaultSystem, tab: Tab) -> None:
    system.note_levels()
    assert system.leftovers() == []
    tab.watch(Question("half"))
    tab.tend()
    wait_until(lambda: any("sockets" in what for what in system.leftovers()), "the tab's socket in the list")
    tab.close()
    system.idle()
