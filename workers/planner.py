"""From a chat request to what the engine is asked: prompt, sampling, and the text that will come out."""

from services.tokens.tokenization import ChatTokenizer
from services.wire.messages import ChatRequest, SamplingDefaults
from workers.answer import Answer
from workers.detokenizer import TextDecoder
from workers.engine import Engine
from workers.generation import Plan
from workers.validation import validate


class ChatPlanner:
    """Plans requests for one model. Raises ChatServerError for what cannot be served; the worker lives on."""

    def __init__(self, tokenizer: ChatTokenizer, engine: Engine, defaults: SamplingDefaults) -> None:
        self._tokenizer = tokenizer
        self._engine = engine
        self._defaults = defaults
        self._decoder = TextDecoder(tokenizer.decoder())

    def __call__(self, request: ChatRequest) -> Plan:
        prompt_ids = self._tokenizer.render(request.messages)
        sampling = validate(
            prompt_ids,
            request.sampling,
            self._engine.limits,
            engine=self._engine.name,
            defaults=self._defaults,
            stop_token_ids=self._tokenizer.stop_token_ids,
        )
        stop = (*request.sampling.stop, *self._tokenizer.stop_strings)
        return Plan(prompt_ids, sampling, Answer(self._decoder, stop))
