"""What is kept of a response besides its answer: the note of its request, which lives as long as the answer does."""

from dataclasses import asdict, dataclass, field
from typing import Any

import orjson

from services.errors import ProtocolError
from services.wire.keys import VERSION
from services.wire.messages import Message, Tool, Truncation


@dataclass(frozen=True)
class ResponseRecord:
    """A response as its client ordered it. `messages`: its own input, without that of the responses before it.

    `created_s`: seconds, by the clock of the web process that accepted it. `temperature` and `top_p` are those that
    apply, the client's or the model's. `previous`: the id of the response that it continues, or empty.
    """

    created_s: int
    model: str
    messages: tuple[Message, ...]
    temperature: float
    top_p: float
    instructions: str | None = None
    previous: str = ""
    background: bool = False
    store: bool = True
    max_output_tokens: int | None = None
    truncation: Truncation = "disabled"
    effort: str | None = None
    metadata: dict[str, str] = field(default_factory=dict)
    text_format: dict[str, Any] | None = None
    tools: tuple[Tool, ...] = ()
    tool_choice: str = "auto"  # as in `ChatRequest`, or `none`
    parallel_tool_calls: bool = True
    strict_tools: tuple[str, ...] = ()
    top_logprobs: int = 0

    def encode(self) -> bytes:
        return orjson.dumps({"v": VERSION, **asdict(self), "messages": [each.encoded() for each in self.messages]})

    @classmethod
    def decode(cls, data: bytes) -> "ResponseRecord":
        """Raises ProtocolError unless `encode` of this version wrote the data. Fields of a later build are ignored."""
        try:
            raw: dict[str, Any] = orjson.loads(data)
            if raw["v"] != VERSION:
                raise ProtocolError(f"response of protocol version {raw['v']!r:.20}; this process speaks {VERSION}")
            known = {name: raw[name] for name in cls.__dataclass_fields__ if name in raw}
            messages = tuple(Message.decode(each) for each in raw["messages"])
            lists = {name: tuple(raw.get(name, ())) for name in ("tools", "strict_tools")}
            return cls(**{**known, **lists, "messages": messages})
        except (KeyError, TypeError, ValueError) as error:
            raise ProtocolError(f"undecodable response of {len(data)} bytes: {error}") from None
