"""The tokenizer that a recipe names, loaded once per process. Called by the steps in `pipelines.steps.NEED_MODEL`."""

from functools import lru_cache

from services.jobs.recipe import TokenizerChoice
from services.models.catalogue import resolve
from services.tokens.tokenization import ChatTokenizer, load_tokenizer


@lru_cache(maxsize=2)  # seconds to load, and a process does many shards of one recipe
def tokenizer_of(choice: TokenizerChoice) -> ChatTokenizer:
    """Raises ConfigurationError when the model or its tokenizer is not to be had here."""
    return load_tokenizer(resolve(choice.model), template=choice.template)
