from services.chat.reader import Text
from services.chat.said import Said


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
