"""Compares an exported GGUF, in the engine that serves it, with the trained model in torch and fp32.

`export.py` calls it. OpenVINO reads the file with the options of a worker, tells the probability of each token of held
texts, and answers some questions greedily; then torch computes the same. One of the two is in memory at a time.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any

from pipelines.training.held_texts import HELD
from services.errors import ConfigurationError
from services.tokens.tokenization import ChatTokenizer
from services.wire.messages import Message

MOST_WORSE = 0.01  # of the perplexity
NEAR_TIE = 0.2  # where greedy answers part, the chosen tokens' log probabilities in torch differ by less
_MAX_TOKENS = 384  # of a held text
_QUESTIONS, _ANSWER_TOKENS = 4, 32


@dataclass(frozen=True)
class Check:
    """What was compared. `equal`: tokens of the greedy answers up to the first that torch would not have chosen."""

    tokens: int
    perplexity: float
    torch_perplexity: float
    answered: int
    equal: int
    gap: float  # the largest difference of log probabilities in torch where an answer parts from its own

    @property
    def worse(self) -> float:
        """By what share the perplexity is higher."""
        return self.perplexity / self.torch_perplexity - 1

    @property
    def fault(self) -> str:
        """Why the export must not be served; empty if it may."""
        if not abs(self.worse) <= MOST_WORSE:
            return (
                f"its perplexity on held texts is {self.perplexity:.4g} and torch's {self.torch_perplexity:.4g}, "
                f"which is more than {MOST_WORSE:.0%} apart"
            )
        if not self.gap <= NEAR_TIE:
            return f"its greedy answers part from torch's where torch is sure ({self.gap:.2f} nats)"
        return ""

    def in_words(self) -> str:
        return (
            f"perplexity {self.perplexity:.4g} on {self.tokens} tokens, torch {self.torch_perplexity:.4g} "
            f"({self.worse:+.2%}); {self.equal} of {self.answered} greedy tokens before the first other one"
        )


def check_export(gguf: Path, folder: Path, config: Any, tokenizer: ChatTokenizer) -> Check:
    """Raises ConfigurationError where OpenVINO cannot read the file."""
    longest = max(2, min(_MAX_TOKENS, config.max_position_embeddings - _ANSWER_TOKENS))
    questions = [tokenizer.render([Message("user", question)])[:longest] for question, _ in HELD]
    texts = [
        (prompt + tokenizer.encode_beginning(answer))[:longest]
        for prompt, (_, answer) in zip(questions, HELD, strict=True)
    ]
    served, answers = _served(gguf, texts, questions[:_QUESTIONS])
    own, parted = _trained(folder, texts, list(zip(questions, answers, strict=False)))
    return Check(
        tokens=len(own),
        perplexity=_perplexity(served),
        torch_perplexity=_perplexity(own),
        answered=sum(map(len, answers)),
        equal=sum(equal for equal, _ in parted),
        gap=max(gap for _, gap in parted),
    )


def _perplexity(logprobs: Sequence[float]) -> float:
    return math.exp(min(-sum(logprobs) / len(logprobs), 700.0))


def _served(
    gguf: Path, texts: Sequence[list[int]], questions: Sequence[list[int]]
) -> tuple[list[float], list[list[int]]]:
    """The log probability of each token of the texts but their first ones, and greedy answers."""
    try:
        import openvino_genai  # type: ignore[import-untyped]

        pipeline = openvino_genai.ContinuousBatchingPipeline(str(gguf), _scheduler(), "CPU", {})
    except (RuntimeError, ValueError, ImportError) as error:
        raise ConfigurationError(f"openvino cannot load it: {error}") from None
    logprobs: list[float] = []
    for text in texts:
        ids, found = _generated(pipeline, text, num_tokens=1, echo=True)
        assert ids[: len(text)] == text, "an echo begins with the prompt"
        logprobs += found[1 : len(text)]
    return logprobs, [_generated(pipeline, question, num_tokens=_ANSWER_TOKENS)[0] for question in questions]


def _scheduler() -> Any:
    import openvino_genai

    config = openvino_genai.SchedulerConfig()
    config.cache_size = 1
    config.max_num_seqs = 1
    return config


def _generated(
    pipeline: Any, prompt: list[int], *, num_tokens: int, echo: bool = False
) -> tuple[list[int], list[float]]:
    import numpy as np
    import openvino as ov  # type: ignore[import-untyped]
    import openvino_genai

    config = openvino_genai.GenerationConfig()
    config.apply_chat_template, config.ignore_eos, config.do_sample = False, True, False
    config.max_new_tokens, config.echo, config.logprobs = num_tokens, echo, int(echo)
    handle = pipeline.add_request(0, ov.Tensor(np.array([prompt], dtype=np.int64)), config)
    ids: list[int] = []
    logprobs: list[float] = []
    while pipeline.has_non_finished_requests():
        pipeline.step()
        while handle.can_read():
            for output in handle.read().values():
                ids += output.generated_ids
                logprobs += output.generated_log_probs
    return ids, logprobs


def _trained(
    folder: Path, texts: Sequence[list[int]], answers: Sequence[tuple[list[int], list[int]]]
) -> tuple[list[float], list[tuple[int, float]]]:
    """The same log probabilities in torch; and of each answer how many tokens are torch's own, and how far torch's
    choice is from the first that is not."""
    import torch
    from transformers import AutoModelForCausalLM

    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    model.eval()

    def next_logprobs(ids: list[int]) -> Any:
        with torch.no_grad():
            return model(input_ids=torch.tensor([ids]), use_cache=False).logits[0].log_softmax(-1)

    own: list[float] = []
    for text in texts:
        own += next_logprobs(text)[:-1].gather(1, torch.tensor(text[1:])[:, None])[:, 0].tolist()
    parted = []
    for prompt, answer in answers:
        after = next_logprobs(prompt + answer)[len(prompt) - 1 : -1]
        gaps = (after.max(1).values - after.gather(1, torch.tensor(answer)[:, None])[:, 0]).tolist()
        equal = sum(1 for _ in takewhile(lambda gap: gap == 0, gaps))
        parted.append((equal, gaps[equal] if equal < len(gaps) else 0.0))
    return own, parted
