"""A sample is the same for the same seed, whatever the shards, and has the asked size."""

from hypothesis import given
from hypothesis import strategies as st

from pipelines.steps.sample import build
from services.jobs.steps.sample import SampleOptions
from tests.pipelines.steps.barriers import cut, judged, survivors
from tests.pipelines.steps.local import talk

RECORDS = [talk("u:hi", id=f"id{number}") for number in range(500)]


def ids(options: SampleOptions, num_shards: int = 1) -> list[str]:
    return [kept.id for kept in survivors(build(options), cut(RECORDS, num_shards))]


@given(st.integers(1, 40), st.integers(0, 3), st.integers(1, 600))
def test_the_sample_does_not_depend_on_the_shards_and_keeps_the_order(num_shards: int, seed: int, count: int) -> None:
    options = SampleOptions(count=count, seed=seed)
    sample = ids(options, num_shards)
    assert sample == ids(options)
    assert len(sample) == min(count, len(RECORDS))
    assert sample == [record.id for record in RECORDS if record.id in set(sample)]


def test_a_fraction_is_that_part_of_all() -> None:
    assert len(ids(SampleOptions(fraction=0.1))) == 50
    assert len(ids(SampleOptions(fraction=0.999))) == 500


def test_a_larger_sample_holds_the_smaller_one_and_another_seed_draws_another() -> None:
    small = set(ids(SampleOptions(count=50)))
    assert small < set(ids(SampleOptions(count=100)))
    assert len(small & set(ids(SampleOptions(count=50, seed=43)))) < 20


def test_pieces_of_one_record_draw_each_for_themselves() -> None:
    pieces = [talk("u:hi", id=f"x_{number}", origin="x") for number in range(100)]
    assert len(survivors(build(SampleOptions(fraction=0.5)), [pieces])) == 50


def test_the_others_say_why_they_end() -> None:
    verdicts = judged(build(SampleOptions(count=499)), cut(RECORDS, 3))
    assert [(said.reason, said.twin) for said in verdicts.values()] == [("not_sampled", None)]
    assert judged(build(SampleOptions(count=1)), []) == {}
