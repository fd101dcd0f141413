"""The named templates of `templates.py` in plain Python: the same text, ten times as fast. `tokenization.py` calls it.

A test compares each with its Jinja text. What a template would refuse is left to Jinja, which says why.
"""

from collections.abc import Callable, Mapping, Sequence

from services.tokens.system_turns import Turn
from services.tokens.templates import ALPACA_SYSTEM, TEMPLATES, VICUNA_SYSTEM

_Write = Callable[[Sequence[Turn], str], list[str]]  # turns, end of turn → the pieces of the text


def written(template: str, turns: Sequence[Turn], *, ask: bool, named_tokens: Mapping[str, str]) -> str | None:
    """The text that this Jinja text makes of the turns; None for another template, or turns that it may refuse."""
    known = _WRITERS.get(template)
    if known is None or not _are_plain(turns):
        return None
    write, prompt, default_end = known
    end = named_tokens.get("eos_token") or default_end
    pieces = [named_tokens.get("bos_token") or "", *write(turns, end), prompt if ask else ""]
    return "".join(pieces)


def _are_plain(turns: Sequence[Turn]) -> bool:
    """Texts of a user and an assistant, behind those of a system or not."""
    if not turns or any(type(turn.get("content")) is not str for turn in turns):
        return False
    first = turns[0]["role"] == "system"
    return all(turn["role"] in ("user", "assistant") for turn in (turns[1:] if first else turns))


def _parted(turns: Sequence[Turn], default: str) -> tuple[str, Sequence[Turn]]:
    return (turns[0]["content"], turns[1:]) if turns[0]["role"] == "system" else (default, turns)


def _vicuna(turns: Sequence[Turn], end: str) -> list[str]:
    system, turns = _parted(turns, VICUNA_SYSTEM)
    pieces, before = [system], ""
    for turn in turns:
        if turn["role"] == "user":
            pieces += ["" if before == "assistant" else " ", "USER: ", turn["content"]]
        else:
            pieces += [" ASSISTANT: ", turn["content"], end]
        before = turn["role"]
    return pieces


def _alpaca(turns: Sequence[Turn], end: str) -> list[str]:
    system, turns = _parted(turns, ALPACA_SYSTEM)
    pieces = [system]
    for turn in turns:
        if turn["role"] == "user":
            pieces += ["\n\n### Instruction:\n", turn["content"]]
        else:
            pieces += ["\n\n### Response:\n", turn["content"], end]
    return pieces


_WRITERS: dict[str, tuple[_Write, str, str]] = {  # Jinja text → writer, what asks for an answer, end without EOS
    TEMPLATES["vicuna-v1.1"].jinja: (_vicuna, " ASSISTANT:", "\n"),
    TEMPLATES["alpaca"].jinja: (_alpaca, "\n\n### Response:\n", ""),
}
