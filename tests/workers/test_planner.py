"""What a worker asks its engine of a request: the packaged model's tokenizer, and an engine that only has limits."""

from typing import Any

import pytest

from services.errors import PromptTooLong, TemplateError, Unsupported
from services.grammar.json_schema import json_object
from services.grammar.notations import EBNF
from services.wire.messages import ChatRequest, Message, SamplingDefaults, SamplingOptions, Truncation
from tests.services.tokens.chat_tokenizers import chat, sentencepiece, smollm2
from tests.services.tokens.reasoning_templates import MANNERS, tokenizer_of
from tests.workers.text_decoders import packaged_tokenizer
from workers.engine import ModelLimits
from workers.planner import ChatPlanner

TOKENIZER = packaged_tokenizer()
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


def planned_by(tokenizer: Any, *messages: Message, **fields: Any) -> Any:
    request = ChatRequest("r1", "ann", "m", messages, **fields)
    return ChatPlanner(tokenizer, Limited(), SamplingDefaults())(request)  # type: ignore[arg-type]


def continued(manner: str, begun: Message, text: str) -> tuple[str, list[Any]]:
    """What readers see of a model that goes on with `text` behind a begun answer."""
    tokenizer = tokenizer_of(MANNERS[manner])
    answer = planned_by(tokenizer, QUESTION, begun, continue_final=True).answer
    answer.extend(tokenizer.decoder().encode(text).ids)
    answer.finish()
    return answer.text, list(answer.parts)


@pytest.mark.parametrize("manner", sorted(MANNERS.keys() - {"muse", "functionary", "kimi-k3"}))
def test_of_a_begun_answer_readers_get_what_follows_it(manner: str) -> None:
    assert continued(manner, Message("assistant", "It is"), " 4.\n  Yes.") == (" 4.\n  Yes.", [])


@pytest.mark.parametrize("manner", ["qwen3", "its own tag", "harmony", "solar", "cohere", "gemma-4"])
def test_a_begun_reasoning_goes_on_as_reasoning_and_the_answer_begins_behind_it(manner: str) -> None:
    model = MANNERS[manner]
    rest = model.thinks.partition("⟨r⟩")[2].replace("⟨a⟩", "It is 4.")
    text, parts = continued(manner, Message("assistant", "", "2 and"), f" 2{rest}")
    assert (text.partition("It is 4.")[:2], parts) == ((" 2", "It is 4."), [(0, "reasoning"), (2, "answer")])


def test_a_begun_answer_may_open_the_reasoning_itself_or_have_closed_it() -> None:
    opens, closed = Message("assistant", "<think>\n2 and"), Message("assistant", "<think>2 and 2</think>\n\nIt is")
    dropping = "a template that drops it"
    assert continued(dropping, opens, " 2</think>4") == (" 24", [(0, "reasoning"), (2, "answer")])
    assert continued(dropping, closed, " 4, not <think>.") == (" 4, not <think>.", [])


def test_white_space_at_the_end_of_a_begun_answer_is_not_said_again() -> None:
    assert continued("qwen3", Message("assistant", "", "2 and\n"), "2") == ("2", [(0, "reasoning")])


def test_a_begun_answer_and_the_question_before_it_are_never_cut() -> None:
    messages = [SYSTEM, *rounds(20), QUESTION, Message("assistant", "They are ")]
    planned = planned_by(TOKENIZER, *messages, continue_final=True)
    kept = [SYSTEM, *messages[1 + planned.context["omitted_messages"] :]]
    assert planned.prompt_ids == TOKENIZER.render_begun(kept).ids and kept[-2] == QUESTION
    assert TOKENIZER.decoder().decode(planned.prompt_ids).endswith("They are ")


def test_the_space_between_a_begun_text_and_the_first_token_behind_it_is_said() -> None:
    """A SentencePiece decoder drops the space with which a text begins."""
    tokenizer = chat(sentencepiece(legacy=False), template="plain")
    for fields in ({"prompt": "Hello the"}, {"continue_final": True}):
        messages = () if "prompt" in fields else (QUESTION, Message("assistant", "Hello the"))
        answer = planned_by(tokenizer, *messages, **fields).answer
        answer.extend(tokenizer.decoder().encode("the cat").ids)
        assert answer.text == " the cat"


def test_a_bare_prompt_has_no_template_no_reasoning_and_no_end_of_a_turn() -> None:
    planned = planned_by(tokenizer_of(MANNERS["opened by the prompt"]), prompt="Once <think>upon")
    tokens = tokenizer_of(MANNERS["opened by the prompt"]).decoder()
    assert tokens.decode(planned.prompt_ids) == "Once <think>upon"
    planned.answer.extend(tokens.encode(" a </think>time").ids)
    assert (planned.answer.text, planned.answer.parts) == (" a </think>time", [])
    vicuna = chat(smollm2(), template="vicuna-v1.1", bos_token=None, eos_token="<|im_end|>", unk_token=None)
    answer = planned_by(vicuna, prompt="x", sampling=SamplingOptions(stop=("END",))).answer
    answer.extend(vicuna.decoder().encode("a\nUSER: bEND").ids)
    assert answer.text == "a\nUSER: b" and answer.is_over


def test_a_bare_prompt_is_not_cut() -> None:
    with pytest.raises(PromptTooLong):
        planned_by(TOKENIZER, prompt="word " * 2_000)


def test_who_wants_no_thinking_gets_the_prompt_without_it_and_a_worker_may_have_a_default() -> None:
    tokenizer = chat(smollm2(), template="qwen3", bos_token=None, eos_token="<|im_end|>", unk_token=None)
    off, usual = tokenizer.render([QUESTION], False), tokenizer.render([QUESTION])
    assert planned_by(tokenizer, QUESTION, thinking=False).prompt_ids == off != usual
    assert planned_by(tokenizer, QUESTION).prompt_ids == usual
    planner = ChatPlanner(tokenizer, Limited(), SamplingDefaults(), thinking=False)  # type: ignore[arg-type]
    assert planner(ChatRequest("r1", "ann", "m", (QUESTION,))).prompt_ids == off
    assert planner(ChatRequest("r1", "ann", "m", (QUESTION,), thinking=True)).prompt_ids == usual


class Formed(Limited):
    """An engine that obeys grammars."""

    limits = ModelLimits(49_152, CONTEXT, 4, frozenset({"temperature", "grammar"}), EBNF)


def formed(manner: str, engine: Any = Formed, **fields: Any) -> Any:
    sampling = SamplingOptions(response_format={"type": "json_object"})
    request = ChatRequest("r1", "ann", "m", (QUESTION,), sampling, **fields)
    return ChatPlanner(tokenizer_of(MANNERS[manner]), engine(), SamplingDefaults())(request)


def test_before_a_form_a_model_reasons_whoever_opens_its_reasoning() -> None:
    opened, opens = formed("opened by the prompt"), formed("qwen3")
    assert opened.answer.reasoning and opens.answer.reasoning
    assert opens.grammar == json_object() and opens.notation == EBNF
    mark = tokenizer_of(MANNERS["qwen3"]).decoder().token_to_id("<think>")
    assert opens.prompt_ids == [*planned_by(tokenizer_of(MANNERS["qwen3"]), QUESTION).prompt_ids, mark]


def test_a_model_that_shall_not_think_begins_its_form_at_once() -> None:
    plan = formed("qwen3", thinking=False)
    assert not plan.answer.reasoning
    assert plan.prompt_ids == planned_by(tokenizer_of(MANNERS["qwen3"]), QUESTION, thinking=False).prompt_ids


def test_a_form_that_engine_or_model_cannot_keep_is_refused_by_its_name() -> None:
    with pytest.raises(Unsupported, match="response_format: engine limited obeys no grammar"):
        formed("qwen3", Limited)
    with pytest.raises(Unsupported, match="response_format: this model writes heads"):
        formed("harmony")
