"""Phrases are whole words of prose."""

import pytest

from pipelines.steps.blocked_phrases import build
from services.jobs.recipe import read_recipe
from services.jobs.steps.blocked_phrases import BlockedPhrasesOptions
from services.places import RECIPES_DIR
from tests.pipelines.steps.local import Ran, answered, talk

VICUNA = RECIPES_DIR / "vicuna.yaml"
PHRASES = ("as an AI language model", "OpenAI", "I'm Sydney", "人工智能", "Straße", "c++")
STEP = build(BlockedPhrasesOptions(phrases=PHRASES))

BLOCKED = [
    ("As an AI language model, I cannot.", "as an AI language model"),
    ("as an\nai  language\n model", "as an AI language model"),
    ("As an **AI language model** I", "as an AI language model"),
    ("_OpenAI_ made me", "OpenAI"),
    ("made by OPENAI.", "OpenAI"),
    ("made by (OpenAI), who", "OpenAI"),
    ("I’m Sydney!", "I'm Sydney"),
    ("我是人工智能助手", "人工智能"),
    ("DIE STRASSE", "Straße"),
    ("in C++, too", "c++"),
]

ALLOWED = [
    "OpenAIs and reopenai are other words",
    "```python\nimport openai\nopenai.api_key = ''\n```",
    "call `openai.Completion.create`",
    "openai.Completion.create is a function, openai_key a name",
    "see https://openai.com/blog and [their page](https://openai.com) or www.openai.com",
    "write to help@openai.com",
    "as an AI\n```\nlanguage model\n```",
    "such as an AIX language model",
    "",
]


@pytest.mark.parametrize(("text", "phrase"), BLOCKED)
def test_a_phrase_is_found_whatever_its_case_spaces_and_emphasis(text: str, phrase: str) -> None:
    assert Ran(STEP, answered(text)).reason == ("blocked_phrase", phrase)


@pytest.mark.parametrize("text", ALLOWED)
def test_code_addresses_and_longer_words_are_no_phrases(text: str) -> None:
    """FastChat drops every coding sample that imports the library."""
    assert Ran(STEP, answered(text)).kept


def test_only_the_roles_named_are_searched() -> None:
    given = talk("u:Were you made by OpenAI?", "a:Why do you ask?")
    assert Ran(STEP, given).kept
    asked = build(BlockedPhrasesOptions(phrases=PHRASES, roles=("user", "assistant")))
    assert Ran(asked, given).reason == ("blocked_phrase", "OpenAI")


def test_the_packaged_recipe_blocks_what_a_model_says_of_itself_and_no_facts() -> None:
    recipe = read_recipe(VICUNA)
    [options] = [choice.options for choice in recipe.steps if isinstance(choice.options, BlockedPhrasesOptions)]
    step = build(options)
    assert Ran(step, answered("Whisper is a speech model developed by OpenAI in 2022.")).kept
    assert not Ran(step, answered("I am a language model trained by OpenAI.")).kept
    assert not Ran(step, answered("I was developed by OpenAI to help you.")).kept


def test_without_phrases_everything_passes() -> None:
    assert Ran(build(BlockedPhrasesOptions()), answered("OpenAI")).kept
