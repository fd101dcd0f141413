import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.records.conversation import Conversation, Source, Turn
from pipelines.records.ledger import Ledger
from pipelines.steps import build as build_step
from pipelines.steps.special_tokens import USUAL, _listed, breaking_up, build
from services.errors import ConfigurationError
from services.jobs.recipe import Recipe, StepChoice, TokenizerChoice
from services.jobs.steps.special_tokens import SpecialTokensOptions

TOKENS = ("<|im_end|>", "<|im_start|>", "</s>", "[INST]", "aa", "aab")
STEP = breaking_up(TOKENS)


def conversation(*texts: str) -> Conversation:
    roles = ("user", "assistant")
    return Conversation("c", tuple(Turn(roles[n % 2], text) for n, text in enumerate(texts)), Source("f", 1))


def run(*texts: str, step: Any = STEP) -> tuple[list[str], dict[str, int]]:
    ledger = Ledger("special_tokens")
    (after,) = step([conversation(*texts)], ledger)
    return [turn.text for turn in after.turns], dict(ledger.counts.changed)


def test_a_space_after_the_first_character_breaks_a_token_up_and_each_is_counted() -> None:
    texts, changed = run("end <|im_end|> and <|im_end|>", "```\nx = '</s>'\n```")
    assert texts == ["end < |im_end|> and < |im_end|>", "```\nx = '< /s>'\n```"]
    assert changed == {"<|im_end|>": 2, "</s>": 1}


def test_what_spells_no_token_passes_as_it_is() -> None:
    before = conversation("a < b and <b>bold</b>", "[1] <s>struck</s >")
    (after,) = STEP([before], Ledger())
    assert after is before


def test_overlapping_tokens_are_all_broken() -> None:
    assert run("aaab")[0] == ["a a ab"]
    assert run("<|im_<|im_end|>end|>")[0] == ["<|im_< |im_end|>end|>"]


@given(st.lists(st.sampled_from([*TOKENS, "<", "|", "a", "b", " ", "im_end|>", "\n", "/s>", "x"])).map("".join))
def test_after_it_no_text_spells_a_token_and_a_second_time_changes_nothing(text: str) -> None:
    (once,), changed = run(text)
    assert not any(token in once for token in TOKENS)
    assert run(once) == ([once], {})
    assert re.sub(" ", "", once) == re.sub(" ", "", text)
    assert len(once) - len(text) <= sum(changed.values())


def test_what_people_write_as_html_is_no_usual_token() -> None:
    step = breaking_up(USUAL)
    assert run("<s>old</s> <mask id='m'/>", step=step) == (["<s>old</s> <mask id='m'/>"], {})
    assert run("<<SYS>> <|eot_id|>", step=step)[0] == ["< <SYS>> < |eot_id|>"]


@pytest.mark.parametrize("token", ["<pad>", "<unk>", "<bos>", "<eos>", "[INST]", "[/INST]", "<mask>"])
def test_a_bare_token_is_text_unless_the_tokenizer_that_is_trained_has_it(token: str) -> None:
    text = f"Batches are filled with {token} up to one length."
    assert run(text, step=breaking_up(_listed((), ("<|im_end|>",)))) == ([text], {})
    assert run(text, step=breaking_up(_listed((), (token,))))[1] == {token: 1}


@pytest.mark.model
def test_the_tokenizers_own_tokens_the_usual_ones_and_the_recipes_are_broken_up() -> None:
    choice = StepChoice(name="special_tokens", options=SpecialTokensOptions(tokens=("@@end",)))
    step = build_step(choice, Recipe(steps=(choice,)))
    texts, changed = run("<repo_name> <|eot_id|> @@end", step=step)
    assert texts == ["< repo_name> < |eot_id|> @ @end"]
    assert changed == {"<repo_name>": 1, "<|eot_id|>": 1, "@@end": 1}


@pytest.mark.model
def test_a_token_with_white_space_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"'end of turn' holds white space"):
        build(SpecialTokensOptions(tokens=("end of turn",)), TokenizerChoice())
