"""Records that share a run of words with an evaluation set end here: a model must not be trained on its exam.

The texts of the set are its user and assistant turns, each for itself, as the words of `pipelines/words.py`: case and
punctuation do not matter. Each run of `ngram` words is looked for in the whole record, system turn included. A shorter
text is looked for as a whole; one of fewer than MIN_WORDS words is not, since it may stand anywhere ("What is this?").
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from pipelines.conversation import Conversation
from pipelines.formats.read import read
from pipelines.ledger import Ledger
from pipelines.steps import Step
from pipelines.words import WordHashes, longest_runs, runs, words
from services.errors import ConfigurationError
from services.recipe import DecontaminateOptions, InputOptions

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MIN_WORDS = 5


def build(options: DecontaminateOptions) -> Step:
    """Reads the evaluation sets. Raises ConfigurationError if one cannot be read as a whole."""
    evaluation = EvaluationRuns(options)

    def step(conversations: Iterable[Conversation], ledger: Ledger) -> Iterator[Conversation]:
        for conversation in conversations:
            if (found := evaluation.find(conversation)) is None:
                yield conversation
            else:
                ledger.reject(conversation, "contaminated", found)

    return step


class EvaluationRuns:
    """Every run of words that betrays a text of the evaluation sets, as a number that leads to the text's record."""

    def __init__(self, options: DecontaminateOptions) -> None:
        self._ngram = options.ngram
        self._hashes = WordHashes()
        self._names: list[str] = []  # of the records
        numbers: dict[int, list[Any]] = defaultdict(list)  # length → for each text, its runs of that length
        owners: dict[int, list[int]] = defaultdict(list)
        for name in options.against:
            self._add(name, numbers, owners)
        self._tables = {length: _table(numbers[length], owners[length]) for length in sorted(numbers)}

    def _add(self, name: str, numbers: dict[int, list[Any]], owners: dict[int, list[int]]) -> None:
        before = sum(map(len, numbers.values()))
        for conversation in read(name, InputOptions(), Ledger(), _refuse):
            self._names.append(f"{conversation.id} of {name}")
            for turn in conversation.turns:
                if turn.role != "system" and len(found := words(turn.text)) >= MIN_WORDS:
                    length = min(len(found), self._ngram)
                    numbers[length].append(longest_runs(self._hashes.of(found), length))
                    owners[length].append(len(self._names) - 1)
        if sum(map(len, numbers.values())) == before:
            raise ConfigurationError(f"evaluation set {name}: no text of at least {MIN_WORDS} words; leave it out")

    def find(self, conversation: Conversation) -> str | None:
        """The evaluation record that the conversation shares words with, and the words."""
        import numpy as np

        said = words("\n".join(turn.text for turn in conversation.turns))
        for length, found in runs(self._hashes.of(said), self._ngram):
            if length not in self._tables:
                continue
            known, owners = self._tables[length]
            places = np.minimum(np.searchsorted(known, found), len(known) - 1)
            hits = np.flatnonzero(known[places] == found)
            if len(hits):
                start = int(hits[0])
                return f"{self._names[owners[places[start]]]}: {' '.join(said[start : start + length])}"
        return None


def _table(numbers: "list[NDArray[np.uint64]]", owners: list[int]) -> "tuple[NDArray[np.uint64], NDArray[np.int64]]":
    """All runs once, sorted, each with the first record that has it."""
    import numpy as np

    known, first = np.unique(np.concatenate(numbers), return_index=True)
    return known, np.repeat(owners, [len(some) for some in numbers])[first]


def _refuse(line: dict[str, Any]) -> None:
    """An evaluation set with a hole would let its questions through in silence."""
    file, number = line["source"]
    raise ConfigurationError(
        f"evaluation set {file}, record at line {number}: {line['reason']} {line['detail']}; mend it or take it out"
    )
