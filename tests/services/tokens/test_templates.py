from typing import Any

import pytest
from transformers.utils.chat_template_utils import render_jinja_template

from services.errors import ConfigurationError
from services.tokens.templates import TEMPLATES, choose_template, named_template

CHAT = [
    {"role": "user", "content": "q1"},
    {"role": "assistant", "content": "a1"},
    {"role": "user", "content": "q2"},
    {"role": "assistant", "content": "a2"},
]


def render(name: str, messages: list[dict[str, str]], **options: Any) -> tuple[str, list[str]]:
    """(text, the parts marked as generated)."""
    given = {"bos_token": "<s>", "eos_token": "</s>", **options}
    prompt = given.pop("add_generation_prompt", False)
    texts, spans = render_jinja_template(
        [messages],
        chat_template=TEMPLATES[name].jinja,
        return_assistant_tokens_mask=True,
        add_generation_prompt=prompt,
        **given,
    )
    return texts[0], [texts[0][start:end] for start, end in spans[0]]


def test_vicuna_is_written_as_its_authors_trained_it() -> None:
    system = (
        "A chat between a curious user and an artificial intelligence assistant. "
        "The assistant gives helpful, detailed, and polite answers to the user's questions."
    )
    text, learned = render("vicuna-v1.1", CHAT)
    assert text == f"<s>{system} USER: q1 ASSISTANT: a1</s>USER: q2 ASSISTANT: a2</s>"
    assert learned == [" a1</s>", " a2</s>"]


def test_alpaca_is_written_as_its_authors_trained_it() -> None:
    text, learned = render("alpaca", CHAT[:2])
    assert text == (
        "<s>Below is an instruction that describes a task. "
        "Write a response that appropriately completes the request."
        "\n\n### Instruction:\nq1\n\n### Response:\na1</s>"
    )
    assert learned == ["a1</s>"]


def test_plain_marks_the_answers_and_their_ends() -> None:
    text, learned = render("plain", CHAT)
    assert text == "<s>User: q1\nAssistant: a1</s>\nUser: q2\nAssistant: a2</s>\n"
    assert learned == [" a1</s>", " a2</s>"]


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_prompt_is_the_beginning_of_the_training_text(name: str) -> None:
    """Else the model is asked in a form that it never saw."""
    prompt, learned = render(name, CHAT[:3], add_generation_prompt=True)
    whole, _ = render(name, CHAT)
    assert whole.startswith(prompt)
    assert len(learned) == 1


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_system_message_replaces_the_default(name: str) -> None:
    text, _ = render(name, [{"role": "system", "content": "SYS"}, *CHAT])
    assert text.startswith("<s>SYS")
    assert "curious" not in text
    assert "Below is" not in text


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_tokenizer_without_special_tokens_can_be_used(name: str) -> None:
    text, learned = render(name, CHAT, bos_token=None, eos_token=None)
    assert "None" not in text
    assert len(learned) == 2


@pytest.mark.parametrize("name", TEMPLATES)
def test_the_stop_strings_are_where_a_next_turn_would_begin(name: str) -> None:
    text, _ = render(name, CHAT, eos_token=None)
    assert TEMPLATES[name].stop
    assert all(stop in text for stop in TEMPLATES[name].stop)


def test_an_answer_that_quotes_a_speaker_is_not_cut_there() -> None:
    """`USER:` in the middle of a line ended Vicuna's answers."""
    quotes = "The prompt says USER: and then ### Instruction: and User: too."
    assert not any(stop in quotes for template in TEMPLATES.values() for stop in template.stop)


@pytest.mark.parametrize(
    ("explicit", "model", "own", "name", "reason"),
    [
        ("alpaca", "vicuna-7b", True, "alpaca", "the setting asks for it"),
        ("", "vicuna-7b", True, "", "own"),
        ("", "lmsys-Vicuna-7b", False, "vicuna-v1.1", "contains 'vicuna'"),
        ("", "my-ALPACA", False, "alpaca", "contains 'alpaca'"),
        ("", "opt-350m", False, "plain", "'opt-350m' matches no other"),
    ],
)
def test_the_choice_of_a_template_is_explained(explicit: str, model: str, own: bool, name: str, reason: str) -> None:
    chosen, sentence = choose_template(explicit, model, own)
    assert chosen == name
    assert reason in sentence
    assert sentence.endswith(".")


def test_an_unknown_template_is_named_with_the_known_ones() -> None:
    with pytest.raises(ConfigurationError, match=r"'vicunya'; known: vicuna-v1\.1, alpaca, plain"):
        named_template("vicunya")
