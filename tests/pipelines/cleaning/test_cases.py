"""Inputs as people have them: what comes out is what is right, and cleaning it again changes nothing."""

from pathlib import Path
from typing import Any

import pytest

from tests.pipelines.cleaning.case_files import RECIPES, Cleaner, cases, place

CASES = {f"{case['case']}-{case['file']}": case for case in cases()}


@pytest.fixture(scope="module", params=RECIPES)
def cleaner(request: pytest.FixtureRequest) -> tuple[str, Cleaner]:
    return request.param, Cleaner(RECIPES[request.param])


@pytest.mark.parametrize("name", CASES)
def test_a_file_from_the_world_becomes_what_is_right(name: str, cleaner: tuple[str, Cleaner], tmp_path: Path) -> None:
    recipe, cleaning = cleaner
    case: dict[str, Any] = CASES[name]
    path = place(case, tmp_path)
    assert cleaning.outcome(path) == case[recipe]
    if case[recipe].get("kept"):
        first, second = cleaning.again(path)
        assert second == first
