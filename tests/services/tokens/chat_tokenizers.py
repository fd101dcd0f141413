"""Tokenizers and templates of the kinds that models come with, for the tests of what a model learns."""

import json
from functools import cache
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from services.tokens.tokenization import ChatTokenizer
from tests.workers.text_decoders import packaged_tokenizer

NUM_MERGES = 2_000
WORDS = "USER: ASSISTANT: Hello the cat answers questions, a curious user asks. User Assistant ### Response Instruction"
LLAMA3 = (
    "{{ bos_token }}{% for message in messages %}"
    "{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' + message['content'] | trim + '<|eot_id|>' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
MISTRAL = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('roles must alternate user/assistant') }}{% endif %}"
    "{% if message['role'] == 'user' %}{{ '[INST] ' + message['content'] + ' [/INST]' }}"
    "{% else %}{{ ' ' + message['content'] | trim + eos_token }}{% endif %}{% endfor %}"
)


def smollm2() -> Tokenizer:
    """Byte-level BPE: the packaged model's with its first merges only, for each copy of all takes most of a second."""
    return Tokenizer.from_str(_first_merges())


@cache
def _first_merges() -> str:
    spec = json.loads(packaged_tokenizer().decoder().to_str())
    model = spec["model"]
    kept, others = model["merges"][:NUM_MERGES], model["merges"][NUM_MERGES:]
    first_of_others = min(model["vocab"]["".join(merge)] for merge in others)
    vocabulary = {token: number for token, number in model["vocab"].items() if number < first_of_others}
    return json.dumps(spec | {"model": model | {"vocab": vocabulary, "merges": kept}})


@cache
def _pieces() -> tuple[list[str], list[tuple[str, str]]]:
    """Vocabulary and merges of a small BPE with `▁` for spaces."""
    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.Metaspace()
    trained.train_from_iterator([WORDS] * 3, trainers.BpeTrainer(vocab_size=200, show_progress=False))
    spec = json.loads(trained.to_str())["model"]
    return list(spec["vocab"]), [tuple(merge) for merge in spec["merges"]]


def sentencepiece(*, legacy: bool) -> Tokenizer:
    """Like Llama 2: `▁` for spaces, a token for every byte. `legacy` puts a `▁` behind every special token too."""
    pieces, merges = _pieces()
    special = ["<unk>", "<s>", "</s>"]
    vocabulary = [*special, *(f"<0x{byte:02X}>" for byte in range(256)), *pieces]
    tokenizer = Tokenizer(
        models.BPE({p: n for n, p in enumerate(vocabulary)}, merges, byte_fallback=True, unk_token="<unk>")
    )
    if legacy:
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.add_special_tokens([AddedToken(token, normalized=False) for token in special])
    return tokenizer


def word_level() -> Tokenizer:
    """Words and each white space are tokens; what it does not know is `<unk>`, which is its padding too."""
    known = ["<unk>", "<s>", "</s>", " ", "\n", *dict.fromkeys(WORDS.split())]
    tokenizer = Tokenizer(models.WordLevel({word: n for n, word in enumerate(known)}, "<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"\s"), "isolated")
    tokenizer.decoder = decoders.Fuse()
    tokenizer.add_special_tokens([AddedToken(token, normalized=False) for token in ("<unk>", "<s>", "</s>")])
    return tokenizer


def chat(backend: Tokenizer, *, own: str = "", template: str = "", **special: str | None) -> ChatTokenizer:
    """A tokenizer with its own template, or a named one."""
    return ChatTokenizer(fast(backend, own=own, **special), template=template)


def fast(backend: Tokenizer, *, own: str = "", **special: str | None) -> Any:
    options: dict[str, Any] = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", **special}
    if own:
        options["chat_template"] = own
    made: Any = PreTrainedTokenizerFast
    return made(tokenizer_object=backend, **options)
