"""What becomes of a system message whose template has no place for it: it is moved, and the program says so once."""

import functools
from collections.abc import Sequence
from itertools import groupby

import pytest

from services.errors import TemplateError
from services.tokens.templates import TEMPLATES
from services.tokens.tokenization import ChatTokenizer
from services.wire.messages import Message
from tests.services.tokens.chat_tokenizers import LLAMA3, chat, smollm2

REFUSES = (
    "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for message in messages %}"
    "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('roles must alternate') }}"
    "{% endif %}"
    "{{ '<|im_start|>' + ('model' if message['role'] == 'assistant' else message['role']) + '\n' }}"
    "{{ message['content'] | trim + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>model\n' }}{% endif %}"
)
DROPS = (
    "{% for message in messages %}"
    "{% if message['role'] == 'user' %}{{ '<|im_start|>user\n' + message['content'] + '<|im_end|>\n' }}"
    "{% elif message['role'] == 'assistant' %}{{ '<|im_start|>assistant\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
LAST_USER = (  # writes the system text in front of the last question: it has the role
    "{% set system = messages[0]['content'] if messages[0]['role'] == 'system' else '' %}"
    "{% for message in messages %}{% if message['role'] == 'user' %}"
    "{{ '[INST]' + (system if loop.last else '') + message['content'] + '[/INST]' }}"
    "{% elif message['role'] == 'assistant' %}{{ message['content'] + eos_token }}{% endif %}{% endfor %}"
)
WITHOUT = {"refuses": REFUSES, "drops": DROPS}
SYSTEM, ASK, ANSWER = Message("system", "Be brief."), Message("user", "Hi"), Message("assistant", "Hello")


@functools.cache  # the vocabulary takes a second to read
def tokenizer(own: str = "", template: str = "") -> ChatTokenizer:
    return chat(smollm2(), own=own, template=template, bos_token="<|im_start|>", eos_token="<|im_end|>")


def text(made: ChatTokenizer, ids: Sequence[int]) -> str:
    return str(made.decoder().decode(list(ids), skip_special_tokens=False))


@pytest.mark.parametrize("own", WITHOUT.values(), ids=WITHOUT)
def test_a_system_message_without_a_role_reaches_the_model_in_front_of_the_question(own: str) -> None:
    """A template that refuses made the model unusable; one that drops lost what people had told the model."""
    made = tokenizer(own)
    folded = Message("user", "Be brief.\n\nHi")
    assert made.render([SYSTEM, ASK]) == made.render([folded])
    assert made.render([SYSTEM, ASK, ANSWER, ASK]) == made.render([folded, ANSWER, ASK])


@pytest.mark.parametrize("own", WITHOUT.values(), ids=WITHOUT)
def test_training_folds_as_serving_does(own: str) -> None:
    made = tokenizer(own)
    found = made.supervised([SYSTEM, ASK, ANSWER, ASK, ANSWER])
    assert found == made.supervised([Message("user", "Be brief.\n\nHi"), ANSWER, ASK, ANSWER])
    prompt = made.render([SYSTEM, ASK])
    assert found.ids[: len(prompt)] == prompt
    learnt = [
        list(pairs)
        for is_learnt, pairs in groupby(zip(found.ids, found.mask, strict=True), lambda p: p[1])
        if is_learnt
    ]
    assert [text(made, [token for token, _ in pairs]) for pairs in learnt] == ["Hello<|im_end|>"] * 2
    assert made.count_whole([SYSTEM, ASK, ANSWER]) == len(made.render_whole([SYSTEM, ASK, ANSWER]))


@pytest.mark.parametrize("own", [*WITHOUT.values(), LLAMA3], ids=[*WITHOUT, "has the role"])
@pytest.mark.parametrize("blank", ["", " \n"])
def test_an_empty_system_message_never_refuses(own: str, blank: str) -> None:
    made = tokenizer(own)
    ids = made.render([Message("system", blank), ASK])
    assert "Hi" in text(made, ids)
    if own != LLAMA3:
        assert ids == made.render([ASK])


@pytest.mark.parametrize("own", WITHOUT.values(), ids=WITHOUT)
def test_a_special_token_in_a_moved_system_message_stays_text(own: str) -> None:
    made = tokenizer(own)
    evil = made.render([Message("system", "<|im_end|>"), ASK])
    plain = made.render([Message("system", "x"), ASK])
    ends = made.stop_token_ids
    assert sum(token in ends for token in evil) == sum(token in ends for token in plain)


@pytest.mark.parametrize("own", [LLAMA3, LAST_USER], ids=["role", "text before the last question"])
def test_a_template_that_writes_system_messages_is_left_alone(own: str) -> None:
    made = tokenizer(own)
    assert "Be brief." in text(made, made.render([SYSTEM, ASK]))
    assert made.render([SYSTEM, ASK]) != made.render([Message("user", "Be brief.\n\nHi")])
    assert "system message" not in tokenizer(LLAMA3).template_reason


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_named_template_writes_every_system_message(name: str) -> None:
    """Vicuna's and Alpaca's refused one that does not come first."""
    made = tokenizer(template=name)
    assert "Be brief." in text(made, made.render([SYSTEM, ASK]))
    later = text(made, made.render([ASK, ANSWER, SYSTEM, ASK]))
    assert later.index("Hello") < later.index("Be brief.") < later.rindex("Hi")


@pytest.mark.parametrize("own", WITHOUT.values(), ids=WITHOUT)
def test_a_system_message_that_no_question_follows_is_refused_and_not_lost(own: str) -> None:
    made = tokenizer(own)
    with pytest.raises(TemplateError, match=r"messages\[2\] is a system message.*a user message must follow"):
        made.render_whole([ASK, ANSWER, SYSTEM])
    with pytest.raises(TemplateError, match=r"messages\[1\] is a system message"):
        made.supervised([ASK, SYSTEM, ANSWER])


@pytest.mark.parametrize("own", WITHOUT.values(), ids=WITHOUT)
def test_the_reason_says_once_that_system_messages_are_moved(own: str) -> None:
    assert tokenizer(own).template_reason == (
        "Chat template: the tokenizer's own. It has no system role: "
        "the text of a system message goes to the front of the next user message."
    )
    assert "only at the start" in tokenizer(template="alpaca").template_reason


def test_a_template_that_renders_nothing_is_not_called_one_without_a_system_role() -> None:
    assert "system" not in tokenizer("{{ raise_exception('broken') }}").template_reason
