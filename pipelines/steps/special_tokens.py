"""Changes text that spells a special token, so that it does not: `<|im_end|>` → `< |im_end|>`, in code too.

A space after the first character is the smallest change that everybody sees. It works for every tokenizer and every
training program, also for those that look for such texts anywhere. The tokens are the special tokens of the tokenizer
of the trained model, those in `USUAL`, and those that the recipe adds.

`USUAL` holds texts that nobody writes without meaning the token. `<s>`, `<mask>`, `<pad>`, `[INST]` and the like are
not in it: they are elements of HTML and SVG, or people write them about language models, and they do no harm to a
tokenizer that lacks such a token. A tokenizer that has it (Llama's `</s>` would end the answer there) names it itself.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import pairwise

from pipelines.records.conversation import Conversation, Turn
from pipelines.records.ledger import Ledger
from pipelines.steps import Step
from pipelines.text.tokenizer import tokenizer_of
from services.errors import ConfigurationError
from services.jobs.recipe import TokenizerChoice
from services.jobs.steps.special_tokens import SpecialTokensOptions
from services.tokens.text_encoding import overlapping

USUAL = (
    "<|im_start|>", "<|im_end|>", "<|im_sep|>", "<|endoftext|>", "<|startoftext|>", "<|begin_of_text|>",
    "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<|eom_id|>", "<|eot|>", "<|end|>",
    "<|system|>", "<|user|>", "<|assistant|>", "<|endofturn|>", "<|pad|>", "<|fim_prefix|>", "<|fim_middle|>",
    "<|fim_suffix|>", "<start_of_turn>", "<end_of_turn>",
    "<<SYS>>", "<</SYS>>",
)  # fmt: skip


def build(options: SpecialTokensOptions, tokenizer: TokenizerChoice) -> Step:
    return breaking_up(_listed(options.tokens, tokenizer_of(tokenizer).special_tokens()))


def _listed(further: Iterable[str], of_tokenizer: Iterable[str]) -> frozenset[str]:
    """All tokens. One with white space in it could be made by the space that breaks another, so there are none."""
    for token in further:
        if re.search(r"\s", token):
            raise ConfigurationError(f"special_tokens: token {token!r} holds white space; leave it out")
    own = (token for token in of_tokenizer if len(token) > 1 and not re.search(r"\s", token))
    return frozenset((*USUAL, *further, *own))


def breaking_up(tokens: Iterable[str]) -> Step:
    """The step for these tokens, each of two characters or more, without white space."""
    longest_first = sorted(tokens, key=lambda token: (-len(token), token))
    pattern = re.compile("|".join(map(re.escape, longest_first)))

    def broken(turn: Turn, found: Counter[str]) -> Turn:
        matches = list(overlapping(pattern, turn.text))
        if not matches:
            return turn
        found.update(match[0] for match in matches)
        cuts = [0, *(match.start() + 1 for match in matches), len(turn.text)]
        return Turn(turn.role, " ".join(turn.text[start:end] for start, end in pairwise(cuts)))

    def step(conversations: Iterable[Conversation], ledger: Ledger) -> Iterator[Conversation]:
        for conversation in conversations:
            found: Counter[str] = Counter()
            turns = [broken(turn, found) for turn in conversation.turns]
            for token, number in sorted(found.items()):
                ledger.changed(token, number)
            yield conversation.with_turns(turns) if found else conversation

    return step
