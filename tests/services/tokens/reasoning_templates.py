"""Chat templates in the manners in which models write reasoning, and a tokenizer that has their marks as tokens.

Each manner: how the model's turn begins, what it writes when it thinks, and what when it does not.
"""

import re
from dataclasses import dataclass
from functools import cache

from tokenizers import AddedToken, Tokenizer, decoders, models

from services.tokens.tokenization import ChatTokenizer
from tests.services.tokens.chat_tokenizers import fast

THOUGHT, SAID = "2 and 2,\n\nhm.", "It is 4.\n    Yes."
_MARKS = re.compile(r"<[|｜/]?[A-Za-z_:]+[|｜]?>|\[/?[A-Z]+\]")


@dataclass(frozen=True)
class Manner:
    """`⟨r⟩` and `⟨a⟩` stand for the reasoning and the answer. `shows`: the template shows what surrounds reasoning."""

    prompt: str
    thinks: str
    answers: str
    shows: bool = True
    signs: str = ""  # what else the template contains

    @property
    def template(self) -> str:
        told = self.thinks.replace("⟨r⟩", "{{ m['reasoning_content'] }}").replace("⟨a⟩", "{{ m['content'] }}")
        plain = self.answers.replace("⟨a⟩", "{{ m['content'] }}")
        turn = f"{{% if m.get('reasoning_content') %}}{told}{{% else %}}{plain}{{% endif %}}" if self.shows else plain
        signs = f"{{# {self.signs} #}}" if self.signs else ""
        return (
            f"{signs}{{% for m in messages %}}"
            f"{{% if m['role'] == 'assistant' %}}<|bot|>{turn}{{% else %}}<|user|>{{{{ m['content'] }}}}{{% endif %}}"
            f"{{% endfor %}}{{% if add_generation_prompt %}}<|bot|>{self.prompt}{{% endif %}}"
        )

    def generated(self, reasoning: str, answer: str) -> str:
        """What the model writes."""
        text = self.thinks if reasoning else self.answers
        return text.replace("⟨a⟩", "\0").replace("⟨r⟩", reasoning).replace("\0", answer).removeprefix(self.prompt)


MANNERS = {
    "qwen3": Manner("", "<think>\n⟨r⟩\n</think>\n\n⟨a⟩", "<think>\n\n</think>\n\n⟨a⟩"),
    "opened by the prompt": Manner("<think>\n", "<think>\n⟨r⟩\n</think>\n\n⟨a⟩", "<think>\n\n</think>\n\n⟨a⟩"),
    "its own tag": Manner("<mm:think>", "<mm:think>⟨r⟩</mm:think>⟨a⟩", "<mm:think></mm:think>⟨a⟩"),
    "a template that drops it": Manner("", "<think>⟨r⟩</think>⟨a⟩", "⟨a⟩", shows=False, signs="</think>"),
    "mistral": Manner("", "[THINK]⟨r⟩[/THINK]⟨a⟩", "⟨a⟩", shows=False, signs="[THINK] [/THINK]"),
    "harmony": Manner(
        "",
        "<|channel|>analysis<|message|>⟨r⟩<|end|><|start|>assistant<|channel|>final<|message|>⟨a⟩",
        "<|channel|>final<|message|>⟨a⟩",
    ),
    "muse": Manner(
        "", " to=self<|message|>⟨r⟩<|eom|><|start|>assistant to=user<|message|>⟨a⟩", " to=user<|message|>⟨a⟩"
    ),
    "kimi-k3": Manner(
        "<|open|>think<|sep|>",
        "<|open|>think<|sep|>⟨r⟩<|close|>think<|sep|><|open|>response<|sep|>⟨a⟩<|close|>response<|sep|><|close|>message<|sep|>",
        "<|open|>think<|sep|><|close|>think<|sep|><|open|>response<|sep|>⟨a⟩<|close|>response<|sep|>",
    ),
    "solar": Manner("", "<|think|>⟨r⟩<|end|><|begin|>assistant<|content|>⟨a⟩", "<|content|>⟨a⟩"),
    "cohere": Manner(
        "<|START_THINKING|>",
        "<|START_THINKING|>⟨r⟩<|END_THINKING|><|START_TEXT|>⟨a⟩<|END_TEXT|>",
        "<|START_THINKING|><|END_THINKING|><|START_TEXT|>⟨a⟩<|END_TEXT|>",
    ),
    "gemma-4": Manner("", "<|channel>thought\n⟨r⟩\n<channel|>⟨a⟩", "⟨a⟩"),
    "apriel": Manner(
        "Here are my reasoning steps:\n",
        "Here are my reasoning steps:\n⟨r⟩\n[BEGIN FINAL RESPONSE]\n⟨a⟩",
        "Here are my reasoning steps:\n[BEGIN FINAL RESPONSE]\n⟨a⟩",
    ),
    "granite": Manner(
        "",
        "<think>⟨r⟩</think>\n<response>⟨a⟩</response>",
        "⟨a⟩",
        shows=False,
        signs="<think></think> <response></response>",
    ),
    "functionary": Manner(">>>", ">>>all\n⟨a⟩", ">>>all\n⟨a⟩"),
}


@cache
def tokenizer_of(manner: Manner, *, text_marks: bool = False) -> ChatTokenizer:
    """Every character is a token; so is every mark, unless they are to be found in the text."""
    backend = Tokenizer(models.BPE({chr(code): code for code in range(0x300)}, [], unk_token="\0"))
    backend.decoder = decoders.Fuse()
    marks = sorted(set(_MARKS.findall(manner.thinks + manner.answers + manner.template)) - {"<|bot|>", "<|user|>"})
    special = ["</s>", "<|bot|>", "<|user|>", *([] if text_marks else marks)]
    backend.add_tokens([AddedToken(mark, special="|" in mark, normalized=False) for mark in special])
    return ChatTokenizer(fast(backend, own=manner.template, bos_token=None, unk_token=None))
