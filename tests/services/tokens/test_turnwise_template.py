"""The texts of a conversation's beginnings, cut from one rendering, are those that the template renders for each."""

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from services.errors import TemplateError
from services.tokens.supervision import SupervisedSequence
from services.tokens.templates import TEMPLATES
from services.tokens.tokenization import ChatTokenizer
from services.tokens.turnwise_template import MARK, beginnings, marked_by_turns
from services.wire.messages import Message
from tests.services.tokens.chat_tokenizers import LLAMA3, MISTRAL, chat, smollm2
from tests.workers.text_decoders import packaged_tokenizer

CHATML = packaged_tokenizer().chat_template
PADDED = """{{ bos_token }}
{%- for message in messages -%}
    {% if loop.index0 %}|{% endif %}
    {{ message['role'] }}: {{ message['content'] }}{{ eos_token }}
{% endfor %}
{%- if add_generation_prompt %}
    {{- 'assistant: ' }}
{%- endif %}"""
BY_TURNS = {"chatml": CHATML, "llama3": LLAMA3, "mistral": MISTRAL, "plain": TEMPLATES["plain"].jinja, "padded": PADDED}

BODY = "{{ message['content'] }}"
ASK = "{% if add_generation_prompt %}A{% endif %}"
LOOP = "{% for message in messages %}"
OTHERS = {
    "reads the last turn": LOOP + "{% if loop.last %}!{% endif %}" + BODY + "{% endfor %}" + ASK,
    "reads the next turn": LOOP + BODY + "{{ loop.nextitem }}{% endfor %}" + ASK,
    "counts the turns": LOOP + BODY + "{{ loop.length }}{% endfor %}" + ASK,
    "reads a property of the loop by a name": LOOP + BODY + "{{ loop['last'] }}{% endfor %}" + ASK,
    "asks for the last message": "{{ messages[-1]['role'] }}" + LOOP + BODY + "{% endfor %}" + ASK,
    "counts the messages": "{% set n = messages | length %}" + LOOP + BODY + "{{ n }}{% endfor %}" + ASK,
    "changes the messages": "{% set messages = messages[1:] %}" + LOOP + BODY + "{% endfor %}" + ASK,
    "filters the loop": "{% for message in messages if message['content'] %}" + BODY + "{% endfor %}" + ASK,
    "writes behind the turns": LOOP + BODY + "{% endfor %}." + ASK,
    "writes another end": LOOP + BODY + "{% endfor %}{% if add_generation_prompt %}A{% else %}.{% endif %}",
    "asks by what a turn says": "{% set ns = namespace(x='') %}" + LOOP + BODY + "{% set ns.x = message['content'] %}"
    "{% endfor %}{% if add_generation_prompt %}{{ ns.x }}{% endif %}",
    "asks within the loop": LOOP + BODY + "{% if add_generation_prompt %}!{% endif %}{% endfor %}" + ASK,
    "trims the whole": "{% filter trim %}" + LOOP + BODY + "{% endfor %}{% endfilter %}" + ASK,
    "loops twice": LOOP + "{% endfor %}" + LOOP + BODY + "{% endfor %}" + ASK,
    "has the loop in a comment": "{# " + LOOP + " #}{% for message in messages[0:] %}" + BODY + "{% endfor %}" + ASK,
}
texts = st.lists(st.sampled_from(["Hello", " ", "\n", "<|im_end|>", "<|eot_id|>", "the cat", "世", ""])).map("".join)
talks = st.lists(st.tuples(st.sampled_from(["system", "user", "assistant"]), texts), max_size=3)


@pytest.mark.parametrize("name", BY_TURNS)
def test_templates_of_the_common_kinds_write_turn_by_turn(name: str) -> None:
    assert marked_by_turns(BY_TURNS[name])


@pytest.mark.parametrize("name", OTHERS)
def test_a_template_that_may_write_a_turn_by_what_follows_is_rendered_for_each_beginning(name: str) -> None:
    assert marked_by_turns(OTHERS[name]) == ""


def tokenizer(name: str) -> ChatTokenizer:
    backend = smollm2()
    backend.add_special_tokens(["<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "</s>"])
    return chat(backend, own=BY_TURNS[name], bos_token="<|im_start|>", eos_token="</s>")


BOTH = {name: (tokenizer(name), tokenizer(name)) for name in BY_TURNS}
for _, each_beginning in BOTH.values():
    each_beginning._marked_by_turns = ""


def found(tokenizer: ChatTokenizer, messages: list[Message]) -> list[SupervisedSequence] | str:
    try:
        return tokenizer.samples(messages)
    except TemplateError as error:
        return str(error)


@pytest.mark.parametrize("name", BY_TURNS)
@settings(max_examples=50)
@given(rest=talks)
@example(rest=[("assistant", "so "), ("user", " and?"), ("assistant", "")])
@example(rest=[("assistant", "one"), ("assistant", "two"), ("system", "three")])
@example(rest=[("assistant", f"of {MARK} marks")])
def test_what_is_learnt_is_the_same_as_with_a_rendering_for_each_beginning(
    name: str, rest: list[tuple[str, str]]
) -> None:
    once, each = BOTH[name]
    messages = [Message("user", "Hi")] + [Message(role, content) for role, content in rest]
    assert found(once, messages) == found(each, messages)


def test_a_text_with_more_marks_than_turns_is_not_cut() -> None:
    assert beginnings(f"a{MARK}b{MARK}c", 2) == ["ab", "abc"]
    assert beginnings(f"a{MARK}b{MARK}c", 1) == []
