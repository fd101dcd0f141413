"""What a chat program wrote into an answer for its page goes; what people wrote about it stays."""

import pytest

from pipelines.steps.chat_marks import build
from services.jobs.steps.chat_marks import ChatMarksOptions
from tests.pipelines.steps.local import Ran, assert_sums_match, talk


def ran(*turns: str) -> Ran:
    result = Ran(build(ChatMarksOptions()), talk(*turns))
    assert_sums_match(result)
    return result


MARKED = [
    ("At 100 C \ue200cite\ue202turn0search3\ue201. See it.", "At 100 C. See it.", "citation"),
    ("The biggest citeturn0search3turn0news1.", "The biggest.", "citation"),
    ("See the table【8†source】.", "See the table.", "source"),
    ("It is so【4:0†a file.pdf】", "It is so", "source"),
    ("It is so [^1^][1]. And so[^2^].", "It is so. And so.", "footnote"),
    ('<details type="reasoning" done="true">\n> 15 * 17\n</details>\n\n255 it is.', "255 it is.", "reasoning"),
    ("Run:\n\n```python\nCopy code\nimport os\n```", "Run:\n\n```python\nimport os\n```", "label"),
]


@pytest.mark.parametrize(("answer", "cleared", "kind"), MARKED)
def test_marks_go_and_a_second_run_finds_none(answer: str, cleared: str, kind: str) -> None:
    """Marks reached the training data, and a model learns to cite what it never read."""
    result = ran("u:How?", "a:" + answer)
    assert result.texts == ["How?", cleared]
    assert set(result.counts.changed) == {kind}
    assert ran("u:How?", "a:" + cleared).counts.changed == {}


@pytest.mark.parametrize(("answer", "_", "kind"), MARKED)
def test_marks_that_the_user_wrote_about_stay(answer: str, _: str, kind: str) -> None:
    given = talk("u:" + answer, "a:" + answer)
    assert Ran(build(ChatMarksOptions()), given).kept[0] is given


@pytest.mark.parametrize(
    "answer",
    [
        "It looks like `【8†source】` and `citeturn0search3`.",
        "```\nAt 100 C【8†source】\n```",
        "Press the button:\n\nCopy code\n\nand paste.",
        "<details>\n<summary>More</summary>\ntext\n</details>",
        "He cites turn 0 and 【a note】 and a footnote[^1].",
    ],
)
def test_code_and_what_only_resembles_a_mark_stay(answer: str) -> None:
    given = talk("u:How?", "a:" + answer)
    assert Ran(build(ChatMarksOptions()), given).kept[0] is given
