"""A conversation written into one text with marks between its turns. `foreign.py` calls it.

    {"text": "### Human: …### Assistant: …"}        Guanaco; also "### Instruction:", "### Input:", "### Response:"
    {"text": "<|im_start|>user\\n…<|im_end|>…"}       ChatML
    {"text": "\\n\\nHuman: …\\n\\nAssistant: …"}         Anthropic's HH
    {"text": "<s>[INST] … [/INST] … </s>"}          Llama 2

A text without such marks is no conversation: it is rejected by name, since plain text needs no cleaning of this kind.
"""

import re
from typing import Any

from pipelines.formats.records import BadRecord
from pipelines.formats.translation import Format, Record, each, message, without

CHATML = re.compile(r"<\|im_start\|>\s*(\w+)\n(.*?)(?:<\|im_end\|>|\Z)", re.DOTALL)
HASHES = re.compile(r"(?:^|\n|(?<=[^#\s]))\s*### ?(Human|User|Instruction|Input|Assistant|Response|System): ?")
HUMAN = re.compile(r"(?:^|\n\n)(Human|Assistant|System): ?")
LLAMA = re.compile(r"\[INST\](.*?)\[/INST\](.*?)(?=(?:<s>)?\s*\[INST\]|\Z)", re.DOTALL)
LLAMA_SYSTEM = re.compile(r"\s*<<SYS>>\n?(.*?)\n?<</SYS>>\s*", re.DOTALL)
ENDS = re.compile(r"(?:\s*(?:</s>|<\|endoftext\|>|<\|end_of_text\|>))+\s*\Z")
ROLES = {"human": "user", "instruction": "user", "input": "user", "response": "assistant"}


def _recognises(record: Record) -> bool:
    return isinstance(record.get("text"), str)


def _translate(record: Record) -> dict[str, Any]:
    text = ENDS.sub("", record["text"])
    turns = _chatml(text) or _llama(text) or marked(HASHES, text) or marked(HUMAN, text)
    if not turns:
        raise BadRecord("plain_text", "text has no marks of turns; plain text is trained on as it is, not cleaned")
    return {**without(record, "text"), "messages": turns}


def _chatml(text: str) -> list[dict[str, Any]]:
    return [message(role, said.strip()) for role, said in CHATML.findall(text) if said.strip()]


def _llama(text: str) -> list[dict[str, Any]]:
    turns = []
    for asked, said in LLAMA.findall(text):
        if found := LLAMA_SYSTEM.match(asked):
            turns.append(message("system", found[1].strip()))
            asked = asked[found.end() :]
        turns += [message("user", asked.strip()), message("assistant", ENDS.sub("", said).strip())]
    return turns


def marked(marks: re.Pattern[str], text: str) -> list[dict[str, Any]]:
    """The turns between marks that name who speaks. Text before the first mark is the system's; none without a mark."""
    before, *rest = marks.split(text)
    turns = [message("system", before.strip())] if rest and before.strip() else []
    for name, said in zip(rest[::2], rest[1::2], strict=True):
        role = ROLES.get(name.lower(), name.lower())
        if name == "Input" and turns and turns[-1]["role"] == "user":
            turns[-1]["content"] += f"\nInput:\n{said.strip()}"
        elif said.strip() or role != "assistant":
            turns.append(message(role, said.strip()))
    return turns


FORMAT = Format("a text column", _recognises, each(_translate))
