"""What a worker asks its engine of a request: the packaged model's tokenizer, and an engine that only has limits."""

from typing import Any

import pytest

from services.errors import PromptTooLong, TemplateError
from services.tokens.tokenization import load_tokenizer
from services.wire.messages import ChatRequest, Message, SamplingDefaults, SamplingOptions, Truncation
from tests.services.tokens.chat_tokenizers import chat, smollm2
from tests.services.tokens.reasoning_templates import MANNERS, tokenizer_of
from tests.workers.text_decoders import packaged_source
from workers.engine import ModelLimits
from workers.planner import ChatPlanner

TOKENIZER = load_tokenizer(packaged_source())
CONTEXT = 400
SYSTEM = Message("system", "You are a kind harbour master.")
QUESTION = Message("user", "And what about the mountains?")


class Limited:
    """An engine that never runs."""

    name = "limited"
    limits = ModelLimits(49_152, CONTEXT, 4, frozenset({"temperature"}))


def rounds(number: int) -> list[Message]:
    words = "the sea is wide and deep and blue " * 3
    return [Message(role, f"{n}: {words}") for n in range(number) for role in ("user", "assistant")]  # type: ignore[arg-type]


def plan(messages: list[Message], max_new_tokens: int = 50, truncation: Truncation = "auto") -> Any:
    sampling = SamplingOptions(max_new_tokens=max_new_tokens)
    request = ChatRequest("r1", "ann", "m", tuple(messages), sampling, truncation=truncation)
    return ChatPlanner(TOKENIZER, Limited(), SamplingDefaults())(request)  # type: ignore[arg-type]


def test_a_conversation_that_fits_is_read_whole() -> None:
    messages = [SYSTEM, *rounds(2), QUESTION]
    planned = plan(messages)
    assert planned.prompt_ids == TOKENIZER.render(messages)
    assert planned.context == {"prompt_tokens": len(planned.prompt_ids), "context_tokens": CONTEXT}


def test_of_a_longer_one_the_system_message_and_the_newest_rounds_are_read_with_room_for_the_answer() -> None:
    messages = [SYSTEM, *rounds(20), QUESTION]
    planned = plan(messages)
    omitted = planned.context["omitted_messages"]
    assert planned.prompt_ids == TOKENIZER.render([SYSTEM, *messages[1 + omitted :]])
    assert omitted % 2 == 0 and len(planned.prompt_ids) <= CONTEXT - 50 and planned.sampling.max_new_tokens == 50
    more = TOKENIZER.render([SYSTEM, *messages[1 + omitted - 2 :]])
    assert len(more) > CONTEXT - 50, "another round would have fitted"


def test_a_long_answer_that_is_asked_for_leaves_three_quarters_of_the_context_to_the_prompt() -> None:
    planned = plan([*rounds(20), QUESTION], max_new_tokens=100_000)
    assert CONTEXT // 2 < len(planned.prompt_ids) <= CONTEXT * 3 // 4
    assert planned.sampling.max_new_tokens == CONTEXT - len(planned.prompt_ids)


def test_a_question_that_needs_the_room_of_the_answer_is_still_asked() -> None:
    question = Message("user", "word " * (CONTEXT - 60))
    planned = plan([*rounds(3), question])
    assert planned.prompt_ids == TOKENIZER.render([question]) and planned.context["omitted_messages"] == 6
    assert 0 < planned.sampling.max_new_tokens < 50


def test_a_question_that_is_too_long_alone_is_refused_in_words_that_people_understand() -> None:
    with pytest.raises(PromptTooLong, match=r"about 2,000 tokens; this model reads 400,"):
        plan([SYSTEM, *rounds(3), Message("user", "word " * 2_000)])


def test_a_request_may_ask_that_nothing_is_left_out() -> None:
    fits = [*rounds(2), Message("user", "word " * 200)]
    assert CONTEXT - 50 < len(TOKENIZER.render(fits)) < CONTEXT
    assert plan(fits).context["omitted_messages"] > 0
    assert "omitted_messages" not in plan(fits, truncation="disabled").context
    with pytest.raises(PromptTooLong):
        plan([SYSTEM, *rounds(20), QUESTION], truncation="disabled")


def test_a_count_of_a_prompt_is_the_number_of_its_tokens() -> None:
    messages = [SYSTEM, *rounds(3), QUESTION]
    assert TOKENIZER.count(messages) == len(TOKENIZER.render(messages))


def test_a_cut_that_the_template_refuses_is_not_made_and_no_message_is_numbered_in_what_is_left() -> None:
    """This template loses a system message that comes first. Cut before it, the error named `messages[0]`."""
    own = (
        "{% for m in messages %}{% if not (loop.first and m['role'] == 'system') %}"
        "{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endif %}{% endfor %}"
    )
    made = chat(smollm2(), own=own, bos_token="<|im_start|>", eos_token="<|im_end|>")
    told = [Message("system", "Go on."), Message("assistant", "sea " * 80), *rounds(2), QUESTION]
    messages = (*rounds(20), *told)
    request = ChatRequest("r1", "ann", "m", messages, SamplingOptions(max_new_tokens=50))
    planned = ChatPlanner(made, Limited(), SamplingDefaults())(request)  # type: ignore[arg-type]
    kept = messages[planned.context["omitted_messages"] :]
    assert planned.prompt_ids == made.render(kept) and kept[0].role == "user"


def test_a_misplaced_system_message_has_the_number_that_it_was_sent_with() -> None:
    folding = (
        "{% for m in messages %}{% if m['role'] != 'system' %}{{ m['role'] + m['content'] }}{% endif %}{% endfor %}"
    )
    made = chat(smollm2(), own=folding, bos_token="<|im_start|>", eos_token="<|im_end|>")
    messages = (*rounds(20), Message("system", "Go on."), Message("assistant", "Yes?"), QUESTION)
    request = ChatRequest("r1", "ann", "m", messages, SamplingOptions(max_new_tokens=50))
    with pytest.raises(TemplateError, match=r"messages\[40\] is a system message"):
        ChatPlanner(made, Limited(), SamplingDefaults())(request)  # type: ignore[arg-type]


def test_the_answer_of_a_model_that_reasons_is_split_as_its_prompt_began_it() -> None:
    tokenizer = tokenizer_of(MANNERS["opened by the prompt"])
    request = ChatRequest("r1", "ann", "m", (QUESTION,))
    answer: Any = ChatPlanner(tokenizer, Limited(), SamplingDefaults())(request).answer  # type: ignore[arg-type]
    answer.extend(tokenizer.decoder().encode("hm\n</think>\n\nHigh.").ids)
    assert (answer.text, answer.parts) == ("hmHigh.", [(0, "reasoning"), (2, "answer")])
