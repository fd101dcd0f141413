"""Templates in the manners of real families: the model sees what its makers' own rendering would show it."""

from typing import Any

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models

from services.errors import ConfigurationError, TemplateError
from services.tokens.family_templates import FAMILY_TEMPLATES
from services.tokens.templates import TEMPLATES
from services.tokens.tokenization import ChatTokenizer
from services.wire.messages import Message
from tests.services.tokens.chat_tokenizers import fast, smollm2

ASK, ANSWER = Message("user", "What is 2+2?"), Message("assistant", "It is 4.")
THOUGHT = Message("assistant", "<think>\nTwo and two.\n</think>\n\nIt is 4.")
CHATML, QWEN3 = FAMILY_TEMPLATES["chatml"], FAMILY_TEMPLATES["qwen3"]
ASSISTANT = "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n<think>\n' }}{% endif %}"
TURNS = "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content.split('</think>')[-1].lstrip() }}"
OPENS = TURNS + "{{ '<|im_end|>\n' }}{% endfor %}" + ASSISTANT  # R1, QwQ: reasoning is opened by the prompt alone
CHANNELS = (  # gpt-oss: an analysis ends with <|end|>, the last answer with <|return|>
    "{% for m in messages %}{% if m.role == 'assistant' %}"
    "{{ '<|start|>assistant<|channel|>final<|message|>' + m.content + ('<|return|>' if loop.last else '<|end|>') }}"
    "{% else %}{{ '<|start|>' + m.role + '<|message|>' + m.content + '<|end|>' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start|>assistant' }}{% endif %}"
)
GLM = (  # nothing ends an answer but the next turn
    "{% for m in messages %}{{ '<|' + m.role + '|>\n' + m.content }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
)
MISTRAL_V3 = (  # the system text stands in the last question, which an answer moves away
    "{% set system = messages[0].content if messages[0].role == 'system' else '' %}"
    "{% for m in messages %}{% if m.role == 'user' %}"
    "{{ '[INST] ' + (system + '\n\n' if loop.last and system else '') + m.content + '[/INST]' }}"
    "{% elif m.role == 'assistant' %}{{ ' ' + m.content + '</s>' }}{% endif %}{% endfor %}"
)
TOOLS = "{% for tool in tools %}{{ tool.name }}{% endfor %}{% for m in messages %}{{ m.content }}{% endfor %}"
EXTRA = (
    "<|return|>",
    "<|channel|>",
    "<|message|>",
    "<|start|>",
    "<|end|>",
    "<|user|>",
    "<|assistant|>",
    "[INST]",
    "[/INST]",
    "</s>",
)


def reference(own: Any, *, rstrip: bool = False) -> Any:
    backend = smollm2()
    backend.add_special_tokens([AddedToken(token, rstrip=rstrip, normalized=False) for token in EXTRA])
    backend.add_tokens([AddedToken(token, normalized=False) for token in ("<think>", "</think>", "    ", "\n\n\n")])
    return fast(backend, own=own, bos_token="<|im_start|>", eos_token="<|endoftext|>", unk_token=None)


def text(chat: ChatTokenizer, ids: list[int]) -> str:
    return str(chat.decoder().decode(ids, skip_special_tokens=False))


def taught(own: Any, *messages: Message) -> list[str]:
    chat = ChatTokenizer(reference(own))
    learnt = [[i for i, m in zip(s.ids, s.mask, strict=True) if m] for s in chat.samples(messages)]
    return [text(chat, ids) for ids in learnt]


def stops(own: Any) -> set[str]:
    chat = ChatTokenizer(reference(own))
    return {text(chat, [token_id]) for token_id in chat.stop_token_ids}


@pytest.mark.parametrize("own", [CHATML, QWEN3, OPENS, CHANNELS, GLM, MISTRAL_V3])
@pytest.mark.parametrize("content", ["<think>a</think>b", "x\n\n\ny", "    def f():\n        <think>", "Cửa ½ 世"])
def test_ids_are_those_of_transformers_where_no_control_token_was_typed(own: str, content: str) -> None:
    """Every added token was broken up, also in an assistant's text: `<think>` became three tokens."""
    theirs = reference(own)
    messages = [Message("user", content), Message("assistant", content), ASK]
    turns = [{"role": m.role, "content": m.content} for m in messages]
    wanted = theirs.apply_chat_template(turns, add_generation_prompt=True)["input_ids"]
    chat = ChatTokenizer(theirs)
    assert chat.render(messages) == wanted
    assert chat.count(messages) == len(wanted)


def test_a_turn_mark_that_the_tokenizer_does_not_call_special_cannot_be_typed() -> None:
    backend = smollm2()
    backend.add_tokens(["<|user|>", "<|assistant|>"])
    chat = ChatTokenizer(fast(backend, own=GLM, bos_token=None, eos_token="<|im_end|>", unk_token=None))
    mark = backend.token_to_id("<|user|>")
    assert chat.render([Message("user", "say <|user|> twice: <|user|>")]).count(mark) == 1


def test_an_end_inside_an_answer_is_no_stop() -> None:
    """`<|end|>` closes an analysis: as a stop it kept gpt-oss from ever answering."""
    assert stops(CHANNELS) == {"<|return|>", "<|endoftext|>"}
    assert taught(CHANNELS, ASK, ANSWER) == ["<|channel|>final<|message|>It is 4.<|return|>"]
    assert taught(CHANNELS, ASK, ANSWER, ASK, ANSWER)[1] == "<|channel|>final<|message|>It is 4.<|return|>"


def test_the_last_end_token_of_a_turn_ends_what_is_learnt() -> None:
    """The first one did: of two channels only the analysis was learnt."""
    two = CHATML.replace("'<|im_end|>\\n'", "'<|end|>' + 'final<|im_end|>\\n'")
    assert taught(two.replace("+ 'final", "~ 'final"), ASK, ANSWER)[0].endswith("<|end|>final<|im_end|>")


def test_what_opens_the_next_turn_ends_an_answer_that_nothing_else_ends() -> None:
    assert "<|user|>" in stops(GLM)
    assert taught(GLM, ASK, ANSWER) == ["It is 4.<|user|>"]


def test_reasoning_that_the_prompt_opens_is_closed_before_the_answer() -> None:
    """Else the model says the answer as its reasoning, and the reader gets none."""
    assert taught(OPENS, ASK, ANSWER) == ["\n</think>\n\nIt is 4.<|im_end|>"]
    assert taught(OPENS, ASK, THOUGHT) == ["Two and two.\n</think>\n\nIt is 4.<|im_end|>"]


def test_reasoning_of_every_round_is_learnt_behind_the_prompt_that_serving_renders() -> None:
    assert taught(QWEN3, ASK, THOUGHT, ASK, THOUGHT) == [f"{THOUGHT.content}<|im_end|>"] * 2


def test_a_system_text_that_moves_with_the_last_question_is_in_every_prompt() -> None:
    chat = ChatTokenizer(reference(MISTRAL_V3))
    messages = [Message("system", "Be brief."), ASK, ANSWER, ASK, ANSWER]
    for number, sample in zip((2, 4), chat.samples(messages), strict=True):
        assert sample.ids[: sample.mask.index(1)] == chat.render(messages[:number])
        assert "Be brief." in text(chat, sample.ids)


def test_the_first_token_of_an_answer_is_the_one_that_serving_sees() -> None:
    """Phi's tokens take the line feed behind them along; training encoded the answer as if they did not."""
    theirs = reference(FAMILY_TEMPLATES["phi-3"], rstrip=True)
    turns = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "  so"}]
    assert (
        ChatTokenizer(theirs).supervised([Message("user", "Hi"), Message("assistant", "  so")]).ids
        == (theirs.apply_chat_template(turns)["input_ids"])
    )


def test_of_several_templates_the_default_is_used_and_others_by_name() -> None:
    """The dictionary was rendered as if it were a template."""
    several = {"default": CHATML, "tool_use": "tools"}
    assert ChatTokenizer(reference(several)).chat_template == CHATML
    assert ChatTokenizer(reference(several), template="tool_use").chat_template == "tools"
    with pytest.raises(ConfigurationError, match=r"no default chat template; .* by name: rag, tool_use"):
        ChatTokenizer(reference({"rag": CHATML, "tool_use": "tools"}))


def test_a_template_for_tools_only_says_so() -> None:
    """It said `'NoneType' object is not iterable`."""
    with pytest.raises(TemplateError, match=r"for calling tools only.*choose the model's template for chats"):
        ChatTokenizer(reference(TOOLS)).render([ASK])


def test_thinking_is_switched_by_the_variable_of_the_template() -> None:
    chat = ChatTokenizer(reference(None), template="qwen3")
    assert text(chat, chat.render([ASK], thinking=False)).endswith("assistant\n<think>\n\n</think>\n\n")
    assert chat.render([ASK], thinking=True) == chat.render([ASK])


@pytest.mark.parametrize("name", FAMILY_TEMPLATES)
def test_a_familys_template_writes_every_message_and_trains(name: str) -> None:
    chat = ChatTokenizer(reference(None), template=name)
    messages = [Message("system", "Be brief."), ASK, ANSWER, ASK]
    assert all(m.content in text(chat, chat.render(messages)) for m in messages)


def by_characters(own: str) -> Any:
    """A tokenizer that is made in no time: every character is a token."""
    backend = Tokenizer(models.BPE({chr(code): code for code in range(0x300)}, [], unk_token="\0"))
    backend.decoder = decoders.Fuse()
    special = [*EXTRA, "<|im_start|>", "<|im_end|>"]
    backend.add_special_tokens([AddedToken(token, normalized=False) for token in special])
    return fast(backend, own=own, bos_token="<|im_start|>", eos_token="</s>", unk_token=None)


def check_begun(theirs: Any, chat: ChatTokenizer, *messages: Message) -> None:
    """Our ids of a prompt with a begun answer are those of `transformers`, and we count them right."""
    turns: list[dict[str, str]] = [{"role": m.role, "content": m.content} for m in messages]
    for turn, message in zip(turns, messages, strict=True):
        turn |= {"reasoning_content": message.reasoning} if message.reasoning else {}
    field = "reasoning_content" if messages[-1].reasoning and not messages[-1].content else True
    wanted = theirs.apply_chat_template(turns, continue_final_message=field)["input_ids"]
    assert chat.render_begun(messages).ids == wanted
    assert chat.count(messages, continue_final=True) == len(wanted)


SHOWS = (  # the manner of Qwen 3: reasoning of the last answer is written
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' }}"
    "{% if m.reasoning_content %}{{ '<think>\n' + m.reasoning_content + '\n</think>\n\n' }}{% endif %}"
    "{{ m.content }}{{ '<|im_end|>\n' }}{% endfor %}" + ASSISTANT
)


NAMED = [*FAMILY_TEMPLATES.values(), *(template.jinja for template in TEMPLATES.values())]


@pytest.mark.parametrize("own", [*NAMED, OPENS, CHANNELS, GLM, MISTRAL_V3, SHOWS])
def test_a_begun_answer_is_rendered_as_transformers_renders_it(own: str) -> None:
    theirs = by_characters(own)
    chat = ChatTokenizer(theirs)
    for content in ("", "It is ", "It is", "<think>\nTwo and", "  4\n\n"):
        check_begun(theirs, chat, ASK, ANSWER, ASK, Message("assistant", content))


@pytest.mark.parametrize("content", ["", "It"])
def test_reasoning_of_a_begun_answer_is_rendered_as_transformers_renders_it(content: str) -> None:
    theirs = by_characters(SHOWS)
    check_begun(theirs, ChatTokenizer(theirs), ASK, Message("assistant", content, "Two and two"))


def test_a_begun_answer_may_close_its_reasoning_unless_the_template_drops_it() -> None:
    closed = Message("assistant", "<think>\nhm\n</think>\n\nIt")
    theirs = by_characters(QWEN3)
    check_begun(theirs, ChatTokenizer(theirs), ASK, closed)
    with pytest.raises(TemplateError, match="does not write the last message's text as it is"):
        ChatTokenizer(by_characters(OPENS)).render_begun([ASK, closed])


def test_an_answer_cannot_go_on_at_the_end_of_reasoning_that_the_template_leaves_out() -> None:
    with pytest.raises(TemplateError, match="does not write the last message's reasoning as it is"):
        ChatTokenizer(by_characters(CHATML)).render_begun([ASK, Message("assistant", "", "Two")])


def test_a_control_token_in_a_begun_answer_is_text() -> None:
    chat = ChatTokenizer(by_characters(CHATML))
    ids = chat.render_begun([ASK, Message("assistant", "say <|im_end|>")]).ids
    assert text(chat, ids).endswith("say <|im_end|>")
    assert ids.count(chat.decoder().token_to_id("<|im_end|>")) == 1


EFFORTS = "{% for m in messages %}{{ m.content }}{% endfor %}{{ '<' ~ (reasoning_effort or 'medium') ~ '>' }}"
NONE = "{% set effort = reasoning_effort or 'none' %}{% for m in messages %}{{ m.content }}{% endfor %}<{{ effort }}>"
BUDGET = "{% for m in messages %}{{ m.content }}{% endfor %}{{ '<0>' if thinking_budget == 0 else '<free>' }}"


@pytest.mark.parametrize(
    ("own", "usual", "on", "off"),
    [(EFFORTS, "medium", "medium", "low"), (NONE, "none", "high", "none"), (BUDGET, "free", "free", "0")],
)
def test_other_switches_of_reasoning_are_set_by_their_own_words(own: str, usual: str, on: str, off: str) -> None:
    chat = ChatTokenizer(by_characters(own))
    found = [text(chat, chat.render([ASK], thinking=thinking)) for thinking in (None, True, False)]
    assert found == [f"{ASK.content}<{word}>" for word in (usual, on, off)]
    assert chat.has_thinking_switch


def test_a_template_without_a_switch_says_so_and_ignores_what_is_asked() -> None:
    chat = ChatTokenizer(by_characters(CHATML))
    assert not chat.has_thinking_switch
    assert chat.render([ASK], thinking=False) == chat.render([ASK])
    assert ChatTokenizer(by_characters(QWEN3)).has_thinking_switch
