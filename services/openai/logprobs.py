"""Log probabilities as OpenAI's clients read them. A token that is not text by itself is told by its bytes.

What a token has is JSON at once, as a fragment: its objects would take some ten times the memory until the answer ends.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import orjson

from services.chat.logprobs import PlacedLogprob
from services.wire.messages import Alternative

Frame = dict[str, Any]


def content_logprobs(placed: Iterable[PlacedLogprob]) -> list[orjson.Fragment]:
    """One object for each token, in chats and responses."""
    return [
        _json({**_of_token(token, logprob), "top_logprobs": [_of_token(*each) for each in likeliest]})
        for _, (token, logprob, likeliest) in placed
    ]


def text_logprobs(placed: Sequence[PlacedLogprob], offset: int, *, with_top: bool) -> Frame:
    """The lists of `text_completion`. `offset`: what stands before the answer. A token's own is among its likeliest."""
    told = [(at, (token, logprob), likeliest) for at, (token, logprob, likeliest) in placed]
    top = [_json(dict(map(_named, [*likeliest, own]))) for _, own, likeliest in told] if with_top else None
    return {
        "tokens": [_named(own)[0] for _, own, _ in told],
        "token_logprobs": [own[1] for _, own, _ in told],
        "top_logprobs": top,
        "text_offset": [offset + at for at, _, _ in told],
    }


def _json(frame: Frame) -> orjson.Fragment:
    return orjson.Fragment(orjson.dumps(frame))


def _of_token(token: str, logprob: float) -> Frame:
    data = token.encode("latin-1")
    return {"token": _text_of(data), "logprob": logprob, "bytes": list(data)}


def _named(token: Alternative) -> tuple[str, float]:
    data, logprob = token[0].encode("latin-1"), token[1]
    text = _text_of(data)
    return (text if text.encode() == data else f"bytes:{text}"), logprob


def _text_of(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        return "".join(f"\\x{byte:02x}" for byte in data)
