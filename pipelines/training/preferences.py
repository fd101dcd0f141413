"""Pairs of answers to one prompt, of which people prefer one → the trainer's data. `train` calls it for objective=dpo.

    {"prompt": …, "chosen": …, "rejected": …}                     TRL: texts, or lists of messages
    {"chosen": [messages], "rejected": [messages]}                 TRL: whole conversations with one prompt
    {"input": {"messages": […]}, "preferred_output": […], "non_preferred_output": […]}   OpenAI

The prompt is the one that serving renders, and both answers are learnt up to their end of turn, as in supervised
training. A pair from which nothing can be learnt is counted with its reason and left out: TRL trains on it, or drops it
without a word.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.formats.read import values
from pipelines.formats.records import Unreadable
from pipelines.training.data import NUM_SHOWN, Counts, Prepared, Stretch, check_refused, is_evaluated, part_of, refuse
from pipelines.training.records import Refusal
from services.errors import ConfigurationError, TemplateError
from services.jobs.training import TrainingConfig
from services.tokens.supervision import SupervisedSequence
from services.tokens.tokenization import ChatTokenizer
from services.wire.messages import Message

SHAPE = "no pair of answers to one prompt"
EQUAL = "two equal answers"
EMPTY = "an empty answer"
REFUSED = "the chat template refuses it"
LONG_PROMPT = "the prompt fills seq_len"
EQUAL_WHEN_CUT = "the answers differ only beyond seq_len"
_SHOWN_CHARS = 300
_COLUMNS = ("prompt_ids", "chosen_ids", "rejected_ids")


class Unusable(Exception):
    """Nothing can be learnt from a record, for the reason by which such records are counted."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


@dataclass(frozen=True)
class Pair:
    """A prompt (it ends with a user's message), and the texts of two answers."""

    prompt: tuple[Message, ...]
    chosen: str
    rejected: str


@dataclass(frozen=True, slots=True)
class Row:
    """A pair as token ids. The answers end where `seq_len` does; `length` is that of the longer one before the cut."""

    prompt_ids: list[int]
    chosen_ids: list[int]
    rejected_ids: list[int]
    length: int


def prepare_pairs(paths: Sequence[Path], tokenizer: ChatTokenizer, config: TrainingConfig, folder: Path) -> Prepared:
    """Read and tokenize into an existing folder, in an order that the seed alone decides.

    Raises ConfigurationError for data that holds no pair, Aborted where more are unusable than `max_refused`.
    """
    counts = Counts()
    rows = _written(_flagged(paths, tokenizer, config, counts), folder / "rows.arrow")
    check_pairs(counts, config)
    part_of(rows, evaluated=False).shuffle(seed=config.seed).save_to_disk(str(folder / "train"))
    if counts.evaluated:
        part_of(rows, evaluated=True).save_to_disk(str(folder / "eval"))
    return Prepared(folder, counts, counts.examples - counts.evaluated)


def inspect_pairs(
    paths: Sequence[Path], tokenizer: ChatTokenizer, config: TrainingConfig, num_examples: int
) -> tuple[Counts, list[tuple[str, list[Stretch]]]]:
    """Counts over the data, and its first pairs in stretches. Nothing is written or refused."""
    counts = Counts()
    examples: list[tuple[str, list[Stretch]]] = []
    for where, row, _ in _rows(paths, tokenizer, config, counts):
        if len(examples) < num_examples:
            examples.append((where, _stretches(tokenizer, row)))
    return counts, examples


def check_pairs(counts: Counts, config: TrainingConfig) -> None:
    """Raises ConfigurationError for data without pairs, Aborted for too many records that are none."""
    if not counts.examples:
        told = f": {counts.told[0]}" if counts.told else ""
        raise ConfigurationError(f"the data holds no pair of answers{told}; give records with chosen and rejected")
    check_refused(counts, config)
    if counts.examples == counts.evaluated:
        raise ConfigurationError(f"eval_fraction={config.eval_fraction} leaves nothing to train on; lower it")


def lines_of_pairs(counts: Counts, config: TrainingConfig) -> Iterator[str]:
    """Lines for people: what is compared, and what is not."""
    yield (
        f"{counts.examples:,} pairs of answers, {counts.tokens:,} tokens, of which {counts.supervised_tokens:,} are "
        f"compared; {counts.evaluated:,} pairs are only evaluated."
    )
    if counts.truncated:
        yield f"{counts.truncated:,} pairs are longer than seq_len={config.seq_len} and were cut there."
    for reason, number in counts.refused.items():
        yield f"{number:,} of {counts.records:,} records were refused: {reason}."
    for told in counts.told:
        yield f"Refused: {told}"


def read_pair(value: Any) -> Pair:
    """The pair of one record. Raises Unusable."""
    if not isinstance(value, dict):
        raise Unusable(SHAPE, f"a record is an object, not {type(value).__name__}")
    if "preferred_output" in value:
        given = value.get("input")
        prompt = given.get("messages") if isinstance(given, dict) else None
        return _pair(prompt, value["preferred_output"], value.get("non_preferred_output"))
    return _pair(value.get("prompt"), value.get("chosen"), value.get("rejected"))


def _pair(prompt: Any, chosen: Any, rejected: Any) -> Pair:
    prompts, answers = zip(*(_conversation(prompt, side) for side in (chosen, rejected)), strict=True)
    if prompts[0] != prompts[1]:
        raise Unusable(SHAPE, "the two answers have different prompts")
    if not prompts[0] or prompts[0][-1].role != "user":
        raise Unusable(SHAPE, "the prompt does not end with a user's message")
    empty = next((name for name, text in zip(("chosen", "rejected"), answers, strict=True) if not text.strip()), "")
    if empty:
        raise Unusable(EMPTY, f"the {empty} answer is empty")
    if answers[0] == answers[1]:
        raise Unusable(EQUAL, "the two answers are equal")
    return Pair(prompts[0], *answers)


def _conversation(prompt: Any, answer: Any) -> tuple[tuple[Message, ...], str]:
    """The prompt and the answer. An answer that brings its conversation along stands for both."""
    before, after = _messages(prompt, "user"), _messages(answer, "assistant")
    if not after:
        return before, ""
    if after[-1].role != "assistant":
        raise Unusable(SHAPE, f"an answer ends with a message of {after[-1].role}, not of the assistant")
    if len(after) > 1 and after[0].role != "assistant":
        before = ()
    return (*before, *after[:-1]), after[-1].content


def _messages(value: Any, role: str) -> tuple[Message, ...]:
    """A text is one message of this role; nothing is none."""
    if value is None:
        return ()
    if isinstance(value, str):
        return (Message(role, value),)  # type: ignore[arg-type]  # the template judges roles
    if not isinstance(value, list):
        raise Unusable(SHAPE, f"messages are a text or a list, not {type(value).__name__}")
    found = []
    for message in value:
        if not isinstance(message, dict) or not isinstance(message.get("content"), str):
            raise Unusable(SHAPE, "a message has no role and content as text")
        found.append(Message(message.get("role", role), message["content"]))
    return tuple(found)


def _flagged(
    paths: Sequence[Path], tokenizer: ChatTokenizer, config: TrainingConfig, counts: Counts
) -> Iterator[dict[str, Any]]:
    """The rows for the trainer, each with whether it is only evaluated: by its prompt, or since its file is."""
    for where, row, only_evaluated in _rows(paths, tokenizer, config, counts):
        evaluated = only_evaluated or is_evaluated(repr(row.prompt_ids), config.eval_fraction)
        counts.evaluated += evaluated
        if len(counts.shown) < NUM_SHOWN:
            chosen, rejected = (_text(tokenizer, ids)[:_SHOWN_CHARS] for ids in (row.chosen_ids, row.rejected_ids))
            counts.shown.append(f"{where}: {chosen!r} over {rejected!r}")
        yield {**{name: getattr(row, name) for name in _COLUMNS}, "evaluated": evaluated}


def _rows(
    paths: Sequence[Path], tokenizer: ChatTokenizer, config: TrainingConfig, counts: Counts
) -> Iterator[tuple[str, Row, bool]]:
    """Every pair that teaches something, with where it stands, and whether its file is only evaluated."""
    for number, path in enumerate(paths):
        for found in values(str(path)):
            counts.records += 1
            where = f"{path.name}:{found.line}"
            try:
                if isinstance(found, Unreadable):
                    raise Unusable(found.reason, found.detail)
                row = _tokenized(read_pair(found.value), tokenizer, config.seq_len)
            except Unusable as error:
                refuse(counts, Refusal(where, error.reason, str(error), readable=True))
                continue
            _count(counts, row, config)
            yield where, row, number >= len(paths) - config.eval_files


def _tokenized(pair: Pair, tokenizer: ChatTokenizer, seq_len: int) -> Row:
    try:
        sides = [
            _split(tokenizer.samples([*pair.prompt, Message("assistant", text)])[-1])
            for text in (pair.chosen, pair.rejected)
        ]
    except (TemplateError, ConfigurationError) as error:
        raise Unusable(REFUSED, str(error)) from None
    (prompt, chosen), (other, rejected) = sides
    if prompt != other:
        raise Unusable(REFUSED, "the chat template writes the prompt otherwise before the other answer")
    room = seq_len - len(prompt)
    if room < 1:
        raise Unusable(LONG_PROMPT, f"a prompt of {len(prompt):,} tokens leaves no room in seq_len={seq_len}")
    if chosen[:room] == rejected[:room]:
        raise Unusable(EQUAL_WHEN_CUT, f"the first {room:,} tokens of both answers are equal")
    longer = len(prompt) + max(len(chosen), len(rejected))
    return Row(prompt, chosen[:room], rejected[:room], longer)


def _split(sequence: SupervisedSequence) -> tuple[list[int], list[int]]:
    """The ids before the last answer, and those of this answer."""
    end = len(sequence.mask) - sequence.mask[::-1].index(1)
    begin = end
    while begin and sequence.mask[begin - 1]:
        begin -= 1
    return sequence.ids[:begin], sequence.ids[begin:end]


def _count(counts: Counts, row: Row, config: TrainingConfig) -> None:
    answers = len(row.chosen_ids) + len(row.rejected_ids)
    counts.examples += 1
    counts.samples += 1
    counts.supervised_tokens += answers
    counts.tokens += answers + 2 * len(row.prompt_ids)
    counts.truncated += row.length > config.seq_len


def _stretches(tokenizer: ChatTokenizer, row: Row) -> list[Stretch]:
    """The prompt, the answer that is preferred, and the other one."""
    prompt, chosen, rejected = (_text(tokenizer, getattr(row, name)) for name in _COLUMNS)
    return [Stretch(prompt, False), Stretch(chosen, True), Stretch(f"\nrather than: {rejected}", False)]


def _text(tokenizer: ChatTokenizer, ids: list[int]) -> str:
    return tokenizer.decoder().decode(ids, skip_special_tokens=False)


def _written(rows: Iterator[dict[str, Any]], path: Path) -> Any:
    from datasets import Dataset, Features, List, Value
    from datasets.arrow_writer import ArrowWriter

    features = Features({**dict.fromkeys(_COLUMNS, List(Value("int32"))), "evaluated": Value("bool")})
    with ArrowWriter(features=features, path=str(path)) as writer:
        for row in rows:
            writer.write(row)
        num, _ = writer.finalize()
    return Dataset.from_file(str(path)) if num else None
