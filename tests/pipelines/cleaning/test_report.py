"""The report page: its numbers, its charts, and that it shows other people's text as text."""

import json

import pytest

from pipelines.cleaning import local
from pipelines.cleaning.charts import bars, histogram
from pipelines.cleaning.cleaning import Cleaning
from pipelines.cleaning.report import MAX_SHOWN_CHARS, shown
from services.jobs.recipe import parse_recipe

RECIPE = "name: recipe\nsteps:\n - roles: {min_chars: 0}\n - blocked_phrases: {phrases: [gone]}\n"


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("report")
    texts = ["<script>alert(1)</script>", "this one is gone", "plain"]
    records = [
        {"id": f"<i>{n}", "conversations": [{"from": "gpt", "value": "before all"}, *pair(text)]}
        for n, text in enumerate(texts)
    ]
    (folder / "in.json").write_text(json.dumps(records))
    recipe = parse_recipe(RECIPE)
    local.run(Cleaning(folder / "out", recipe, [str(folder / "in.json")]), 1, lambda *_: None)
    return (folder / "out" / "report.html").read_text("utf-8")


def pair(text: str) -> list[dict[str, str]]:
    return [{"from": "human", "value": f"Why {text}?"}, {"from": "gpt", "value": text}]


def test_text_of_records_is_shown_and_never_markup(page: str) -> None:
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page and "&lt;i&gt;0" in page
    assert "<script" not in page and "<i>0" not in page


def test_numbers_and_reasons_stand_in_it(page: str) -> None:
    assert "<b>3</b><span>records read</span>" in page and "<b>2</b><span>written: train</span>" in page
    assert "blocked_phrases: blocked_phrase" in page and "leading_assistant 3" in page
    assert "rejected by blocked_phrases: blocked_phrase" in page


def test_nothing_is_fetched(page: str) -> None:
    assert all(word not in page for word in ("src=", "href=", "@import", "url("))


def test_a_bar_is_as_long_as_its_share() -> None:
    drawn = bars([("all", 200), ("half", 100)], "Two")
    widths = [float(part.split('"')[0]) for part in drawn.split('width="')[1:]]
    assert widths[0] == 2 * widths[1] and bars([], "None") == ""


def test_a_histogram_shows_shares_of_each_set() -> None:
    drawn = histogram({"1": 1, "2": 3}, {"2": 10}, "Lengths")
    assert "from 2: 75.0% before" in drawn and "from 2: 100.0% after" in drawn and "from 1: 0.0% after" in drawn
    assert histogram({}, {}, "Nothing") == ""


def test_a_long_text_says_how_much_is_left_out() -> None:
    assert shown("x" * MAX_SHOWN_CHARS) == "x" * MAX_SHOWN_CHARS
    assert shown("x" * (MAX_SHOWN_CHARS + 5)).endswith("… (5 more characters)")
