"""A share is set aside, by the id of the input record."""

from dataclasses import replace

from pipelines.steps.split_validation import build
from services.jobs.steps.split_validation import SplitValidationOptions
from tests.pipelines.steps.local import Ran, talk

TALKS = [talk("u:q", "a:a", id=f"c{number}") for number in range(5000)]


def sides(seed: int = 0, fraction: float = 0.1) -> list[str]:
    step = build(SplitValidationOptions(fraction=fraction, seed=seed))
    return [kept.split for kept in Ran(step, *TALKS).kept]


def test_about_the_share_is_set_aside_and_counted() -> None:
    result = Ran(build(SplitValidationOptions(fraction=0.1)), *TALKS)
    assert 400 < result.counts.changed["validation"] < 600
    assert result.counts.changed.total() == 5000


def test_the_seed_and_the_id_alone_decide() -> None:
    assert sides() == sides()
    assert sides(seed=1) != sides()


def test_a_larger_share_holds_the_smaller_one() -> None:
    pairs = zip(sides(fraction=0.1), sides(fraction=0.2), strict=True)
    assert all(larger == "validation" for smaller, larger in pairs if smaller == "validation")


def test_pieces_of_one_conversation_stay_together() -> None:
    """FastChat splits before it sets aside, so that pieces of one land on both sides."""
    pieces = [replace(TALKS[0], id=f"c0_{start}", origin="c0") for start in range(200)]
    assert len({kept.split for kept in Ran(build(SplitValidationOptions(fraction=0.5)), *pieces).kept}) == 1
