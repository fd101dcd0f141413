from services.chat.reader import Text
from services.chat.said import Said, SaidCall, call_id


def said(*texts: tuple[str, str]) -> Said:
    made, offset = Said(), 0
    for part, text in texts:
        made.take(Text(offset, "n", text, part))
        offset += len(text)
    return made


def test_reasoning_and_answer_are_kept_apart() -> None:
    kept = said(("reasoning", "hm"), ("answer", "It is "), ("reasoning", " so"), ("answer", "4."), ("later", "{}"))
    assert (kept.reasoning, kept.answer) == ("hm so", "It is 4.")


def test_a_rewind_takes_back_what_stands_behind_its_offset() -> None:
    kept = said(("reasoning", "hm"), ("answer", "It is 4."))
    kept.rewind(4)
    assert (kept.reasoning, kept.answer) == ("hm", "It")
    kept.rewind(1)
    kept.take(Text(1, "n", "!", "answer"))
    assert (kept.reasoning, kept.answer) == ("h", "!")


def test_calls_are_kept_in_their_order_however_their_text_came() -> None:
    kept = said(("answer", "So."), ("call", "wea"), ("call", "ther"), ("arguments", "{"), ("arguments", "}"))
    assert (kept.answer, kept.calls) == ("So.", [SaidCall("weather", "{}")])
    twice = said(("call", "a"), ("arguments", "{}"), ("call", "b"), ("arguments", "{}"), ("answer", "!"))
    assert (twice.answer, twice.calls) == ("!", [SaidCall("a", "{}"), SaidCall("b", "{}")])


def test_the_id_of_a_call_comes_from_request_and_place_alone() -> None:
    assert call_id("r1", 0) == call_id("r1", 0) != call_id("r1", 1) != call_id("r2", 1)
