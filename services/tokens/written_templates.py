"""The named templates of `templates.py` in plain Python: the same text, ten times as fast. `tokenization.py` calls it.

A test compares each with its Jinja text, in what it refuses too. To write a conversation loads no library.
"""

from collections.abc import Callable, Mapping, Sequence

from services.errors import TemplateError
from services.tokens.system_turns import Turn
from services.tokens.templates import ALPACA_SYSTEM, TEMPLATES, VICUNA_SYSTEM

_REFUSAL = "the model's chat template refuses these messages: a system message may only come first"
_Write = Callable[[Sequence[Turn], str], list[str]]  # turns, end of turn → the pieces of the text


def written(template: str, turns: Sequence[Turn], *, ask: bool, named_tokens: Mapping[str, str]) -> str | None:
    """The text that this Jinja text makes of the turns; None for another template, or turns that are not of texts.

    Raises TemplateError if the template refuses them.
    """
    known = _WRITERS.get(template)
    if known is None or not turns or any(type(turn.get("content")) is not str for turn in turns):
        return None
    write, prompt, default_end = known
    end = named_tokens.get("eos_token") or default_end
    pieces = [named_tokens.get("bos_token") or "", *write(turns, end), prompt if ask else ""]
    return "".join(pieces)


def _parted(turns: Sequence[Turn], default: str) -> tuple[str, Sequence[Turn]]:
    return (turns[0]["content"], turns[1:]) if turns[0]["role"] == "system" else (default, turns)


def _vicuna(turns: Sequence[Turn], end: str) -> list[str]:
    system, turns = _parted(turns, VICUNA_SYSTEM)
    pieces, before = [system], ""
    for turn in turns:
        if turn["role"] == "user":
            pieces += ["" if before == "assistant" else " ", "USER: ", turn["content"]]
        elif turn["role"] == "assistant":
            pieces += [" ASSISTANT: ", turn["content"], end]
        else:
            raise TemplateError(_REFUSAL)
        before = turn["role"]
    return pieces


def _alpaca(turns: Sequence[Turn], end: str) -> list[str]:
    system, turns = _parted(turns, ALPACA_SYSTEM)
    pieces = [system]
    for turn in turns:
        if turn["role"] == "user":
            pieces += ["\n\n### Instruction:\n", turn["content"]]
        elif turn["role"] == "assistant":
            pieces += ["\n\n### Response:\n", turn["content"], end]
        else:
            raise TemplateError(_REFUSAL)
    return pieces


_WRITERS: dict[str, tuple[_Write, str, str]] = {  # Jinja text → writer, what asks for an answer, end without EOS
    TEMPLATES["vicuna-v1.1"].jinja: (_vicuna, " ASSISTANT:", "\n"),
    TEMPLATES["alpaca"].jinja: (_alpaca, "\n\n### Response:\n", ""),
}
