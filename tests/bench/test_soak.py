"""The soak's judgement of memory: a leak shows through restarts, noise and steps do not count as one."""

import math
import random

from bench.soak import Sample, growth

HOUR_S = 3600.0


def samples(mib_per_hour: float, *, noise: float = 0.5, lives: int = 3, minutes: float = 30) -> list[Sample]:
    """A process that is replaced now and then, each time by one of another size."""
    chooser = random.Random(1)
    found = []
    for number in range(int(minutes * 12)):
        at_s = number * 5.0
        life = int(number * lives / (minutes * 12))
        mib = 60 + 7 * (life % 2) + mib_per_hour * at_s / HOUR_S + chooser.gauss(0, noise)
        found.append(Sample("worker-0", life, at_s, mib))
    return found


def test_a_leak_shows_though_its_process_is_replaced() -> None:
    found = growth("worker-0", samples(60), from_s=900, young_s=60)
    assert abs(found.slope - 60) < found.plus_minus + 5 and found.processes == 3
    assert found.too_much(30)


def test_noise_and_processes_of_different_size_are_no_leak() -> None:
    found = growth("worker-0", samples(0, noise=3), from_s=900, young_s=60)
    assert not found.too_much(30)
    assert abs(found.slope) <= found.plus_minus


def test_too_few_samples_are_no_verdict() -> None:
    found = growth("worker-0", samples(60, minutes=1), from_s=30, young_s=10)
    assert math.isnan(found.slope) and not found.too_much(30)


def test_a_run_of_a_few_minutes_does_not_take_a_start_for_a_leak() -> None:
    found = growth("worker-0", samples(60, noise=0.01, lives=1, minutes=3), from_s=90, young_s=9)
    assert found.slope - found.plus_minus > 30 and not found.too_much(30)
