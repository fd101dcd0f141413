"""What a request uses, in tokens: estimated when it is queued, counted when it ends.

`services/chat/requests.py` estimates, for the line and for quotas; a worker counts.
"""

from dataclasses import dataclass
from math import ceil

import orjson

from services.wire.messages import ChatRequest

BYTES_OF_TOKEN = 4  # of UTF-8: as measured, 3 to 5 in English, Chinese and code
TOKENS_OF_TURN = 4  # which the chat template writes around a message


@dataclass(frozen=True)
class Tokens:
    """Tokens of a prompt and of its answer. Of a request that has not run, the answer is the longest possible."""

    prompt: int = 0
    answer: int = 0


def estimate(request: ChatRequest) -> Tokens:
    """What the request may use. No front end loads a tokenizer: the prompt is estimated by its bytes."""
    texts = [request.prompt, *(message.text for message in request.messages)]
    num_bytes = sum(len(text.encode("utf-8", "surrogatepass")) for text in texts)
    num_bytes += len(orjson.dumps(request.tools)) if request.tools else 0
    prompt = ceil(num_bytes / BYTES_OF_TOKEN) + TOKENS_OF_TURN * len(request.messages)
    return Tokens(prompt, request.sampling.max_new_tokens)
