"""Answers that people judged → rows of token ids. `preferences` (pairs) and `ratings` (single answers) share this.

The prompt of a row is the one that serving renders, and an answer counts up to its end of turn, as in supervised
training: with its reasoning and its calls of tools, behind the tools and the results that it read. A record from which
nothing can be learnt is counted with its reason and left out: TRL trains on it, or drops it without a word.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from pipelines.formats.read import values
from pipelines.formats.records import NOTHING, BadRecord, Unreadable
from pipelines.formats.tool_calls import tools_of
from pipelines.records.conversation import Turn
from pipelines.training.data import (
    NUM_SHOWN,
    Counts,
    Prepared,
    Stretch,
    check_refused,
    is_evaluated,
    part_of,
    refuse,
)
from pipelines.training.records import UNUSED, Refusal, reasoning_of
from pipelines.training.reporting import BadData
from pipelines.training.samples import NO_PLACE
from pipelines.training.tool_records import message_of
from services.errors import ConfigurationError, TemplateError
from services.jobs.training import TrainingConfig
from services.tokens.supervision import SupervisedSequence
from services.tokens.tokenization import ChatTokenizer
from services.tokens.tool_turns import NoPlaceForTools
from services.wire.messages import CallMessage, Message, Tool

EMPTY = "an empty answer"
REFUSED = "the chat template refuses it"
LONG_PROMPT = "the prompt fills seq_len"
SHOWN_CHARS = 300


class Unusable(Exception):
    """Nothing can be learnt from a record, for the reason by which such records are counted."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


class Row(Protocol):
    """What the trainer gets of one judgement."""

    @property
    def prompt_ids(self) -> list[int]: ...

    @property
    def answers(self) -> Sequence[list[int]]:
        """The ids of its answers, which end where `seq_len` does."""

    @property
    def length(self) -> int:
        """Tokens of prompt and longest answer, before the cut."""

    @property
    def left_out(self) -> frozenset[str]:
        """What the template does not write of its answers."""

    def columns(self) -> dict[str, Any]:
        """Its fields in the trainer's data."""

    def stretches(self, tokenizer: ChatTokenizer) -> list[Stretch]:
        """Its text for people."""

    def line(self, tokenizer: ChatTokenizer) -> str:
        """Its answers in one line for the log."""

    def count(self, counts: Counts) -> None:
        """Count what only such a row has. Called for rows that are trained on."""


ReadRows = Callable[[Any, ChatTokenizer, TrainingConfig], Sequence[Row]]
"""The rows of a record's JSON value. Raises Unusable."""


@dataclass(frozen=True, slots=True)
class TokenizedAnswer:
    """An answer behind its prompt as token ids. `left_out`: what the template does not write of the answer."""

    prompt_ids: list[int]
    ids: list[int]
    left_out: frozenset[str]


class JudgedData:
    """The rows in some files. Counts them while they are read."""

    def __init__(
        self, paths: Sequence[Path], tokenizer: ChatTokenizer, config: TrainingConfig, read: ReadRows, counts: Counts
    ) -> None:
        self._paths = paths
        self._tokenizer = tokenizer
        self._config = config
        self._read = read
        self._counts = counts
        self._prompts: dict[bool, set[int]] = {False: set(), True: set()}  # evaluated → hashes

    def rows(self) -> Iterator[tuple[str, Row, bool]]:
        """Every row, with where it stands, and whether it is only evaluated: by its prompt, or since its file is."""
        for number, path in enumerate(self._paths):
            only_evaluated = number >= len(self._paths) - self._config.eval_files
            for where, row in self._rows_of(path):
                evaluated = only_evaluated or is_evaluated(repr(row.prompt_ids), self._config.eval_fraction)
                self._count(row, evaluated)
                yield where, row, evaluated

    def written(self, path: Path, features: Mapping[str, Any]) -> Any:
        """All rows as a data set of these features and the flag `evaluated`; None if there is no row."""
        from datasets import Dataset, Features, Value
        from datasets.arrow_writer import ArrowWriter

        with ArrowWriter(features=Features({**features, "evaluated": Value("bool")}), path=str(path)) as writer:
            for where, row, evaluated in self.rows():
                if len(self._counts.shown) < NUM_SHOWN:
                    self._counts.shown.append(f"{where}: {row.line(self._tokenizer)}")
                writer.write({**row.columns(), "evaluated": evaluated})
            num, _ = writer.finalize()
        return Dataset.from_file(str(path)) if num else None

    def examples(self, num: int) -> list[tuple[str, list[Stretch]]]:
        """The first rows as people read them. Reads, and counts, all."""
        found: list[tuple[str, list[Stretch]]] = []
        for where, row, _ in self.rows():
            if len(found) < num:
                found.append((where, row.stretches(self._tokenizer)))
        return found

    def _rows_of(self, path: Path) -> Iterator[tuple[str, Row]]:
        for found in values(str(path)):
            self._counts.records += 1
            where = f"{path.name}:{found.line}"
            try:
                if isinstance(found, Unreadable):
                    raise Unusable(found.reason, found.detail)
                rows = self._read(found.value, self._tokenizer, self._config)
            except Unusable as error:
                refuse(self._counts, Refusal(where, error.reason, str(error), readable=True))
                continue
            self._count_losses(found.value, rows)
            yield from ((where, row) for row in rows)

    def _count_losses(self, value: Mapping[str, Any], rows: Sequence[Row]) -> None:
        counts = self._counts
        for name in sorted({name for row in rows for name in row.left_out}):
            counts.left_out[name] = counts.left_out.get(name, 0) + 1
        for name in (name for name in UNUSED if value.get(name) not in NOTHING):
            counts.unused[name] = counts.unused.get(name, 0) + 1

    def _count(self, row: Row, evaluated: bool) -> None:
        counts, learnt = self._counts, sum(map(len, row.answers))
        counts.examples += 1
        counts.samples += 1
        counts.evaluated += evaluated
        counts.supervised_tokens += learnt
        counts.tokens += learnt + len(row.answers) * len(row.prompt_ids)
        counts.truncated += row.length > self._config.seq_len
        self._prompts[evaluated].add(hash(tuple(row.prompt_ids)))
        counts.prompts, counts.evaluated_prompts = (len(self._prompts[flag]) for flag in (False, True))
        if not evaluated:
            row.count(counts)


def saved(
    rows: Any, counts: Counts, config: TrainingConfig, folder: Path, arranged: Callable[[Any], Any] = lambda rows: rows
) -> Prepared:
    """The data sets that the trainer reads, in an order that the seed alone decides."""
    arranged(part_of(rows, evaluated=False).shuffle(seed=config.seed)).save_to_disk(str(folder / "train"))
    if counts.evaluated:
        arranged(part_of(rows, evaluated=True)).save_to_disk(str(folder / "eval"))
    return Prepared(folder, counts, counts.examples - counts.evaluated)


def check_judged(counts: Counts, config: TrainingConfig, *, what: str, remedy: str) -> None:
    """Raises ConfigurationError for data without a row, Aborted for too many records that are none."""
    if not counts.examples:
        told = f": {counts.told[0]}" if counts.told else ""
        raise BadData(f"the data holds no {what}{told}; {remedy}", counts.faulty_file)
    check_refused(counts, config)
    if counts.examples == counts.evaluated:
        raise ConfigurationError(f"eval_fraction={config.eval_fraction} leaves nothing to train on; lower it")


# -- messages --------------------------------------------------------------------------------------------------------


def conversation_of(prompt: Any, answer: Any, reason: str) -> tuple[tuple[Message, ...], Message]:
    """The prompt and the answer, which is empty if there is none. An answer that brings its conversation along stands
    for both.

    Raises Unusable with this reason for what is no question with its answer.
    """
    before, after = _messages(prompt, "user", reason), _messages(answer, "assistant", reason)
    if not after:
        return before, Message("assistant", "")
    if after[-1].role != "assistant":
        raise Unusable(reason, f"an answer ends with a message of {after[-1].role}, not of the assistant")
    if len(after) > 1 and after[0].role != "assistant":
        before = ()
    return (*before, *after[:-1]), after[-1]


def says_nothing(answer: Message) -> bool:
    """Whether it has neither words nor a call: reasoning alone is no answer."""
    return not answer.content.strip() and not isinstance(answer, CallMessage)


def tools_of_record(value: Any) -> tuple[dict[str, Any], ...]:
    """The tools in a record's field. Raises Unusable."""
    try:
        return tools_of(value)
    except BadRecord as error:
        raise Unusable(error.reason, str(error)) from None


def check_prompt(prompt: Sequence[Message], reason: str) -> None:
    """Raises Unusable with this reason for a prompt to which no answer follows."""
    if not prompt or prompt[-1].role not in ("user", "tool"):
        raise Unusable(reason, "the prompt does not end with a user's message or a tool's result")


def _messages(value: Any, role: str, reason: str) -> tuple[Message, ...]:
    """A text is one message of this role; nothing is none."""
    if value is None:
        return ()
    if isinstance(value, str):
        return (Message(role, value),)  # type: ignore[arg-type]  # the template judges roles
    if not isinstance(value, list):
        raise Unusable(reason, f"messages are a text or a list, not {type(value).__name__}")
    return tuple(_message(message, role, number, reason) for number, message in enumerate(value))


def _message(value: Any, role: str, number: int, reason: str) -> Message:
    if not isinstance(value, dict):
        raise Unusable(reason, "a message has no role and content as text")
    silent = value.get("content") is None and value.get("tool_calls") not in NOTHING
    text = "" if silent else value.get("content")
    if not isinstance(text, str):
        raise Unusable(reason, "a message has no role and content as text")
    turn = Turn(value.get("role", role), text)
    try:
        return message_of(turn, value, reasoning_of(turn, value, number), number)
    except BadRecord as error:
        raise Unusable(error.reason, str(error)) from None


# -- tokens ----------------------------------------------------------------------------------------------------------


def tokenized(
    prompt: Sequence[Message],
    answer: Message,
    tools: Sequence[Tool],
    tokenizer: ChatTokenizer,
    config: TrainingConfig,
) -> TokenizedAnswer:
    """The answer as supervised training has it. Raises Unusable."""
    try:
        return _split(tokenizer.samples([*prompt, answer], tools=tools, thinking=config.thinking)[-1])
    except (TemplateError, ConfigurationError) as error:
        raise Unusable(NO_PLACE if isinstance(error, NoPlaceForTools) else REFUSED, str(error)) from None


def room_after(prompt_ids: Sequence[int], seq_len: int) -> int:
    """The tokens that are left for an answer. Raises Unusable if there are none."""
    if len(prompt_ids) >= seq_len:
        raise Unusable(LONG_PROMPT, f"a prompt of {len(prompt_ids):,} tokens leaves no room in seq_len={seq_len}")
    return seq_len - len(prompt_ids)


def text_of(tokenizer: ChatTokenizer, ids: Sequence[int]) -> str:
    return tokenizer.decoder().decode(list(ids), skip_special_tokens=False)


def _split(sequence: SupervisedSequence) -> TokenizedAnswer:
    """The ids before the last answer, and those of this answer."""
    end = len(sequence.mask) - sequence.mask[::-1].index(1)
    begin = end
    while begin and sequence.mask[begin - 1]:
        begin -= 1
    return TokenizedAnswer(sequence.ids[:begin], sequence.ids[begin:end], sequence.left_out)
