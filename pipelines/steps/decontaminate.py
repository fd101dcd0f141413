"""Rejects records that share a run of words with an evaluation set: a model must not be trained on its exam.

The texts of the set are its single user and assistant turns, as the words of `pipelines/text/words.py`: case and
punctuation do not matter. The step looks for each run of `ngram` words in the whole record, system turn included. It
looks for a shorter text as a whole, but not for a text of fewer than MIN_WORDS words, which may stand anywhere ("What
is this?").
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from pipelines.formats.read import read
from pipelines.records.conversation import Conversation
from pipelines.records.ledger import Ledger
from pipelines.steps import Step
from pipelines.text.words import WordHashes, longest_runs, runs, words
from services.errors import ConfigurationError
from services.jobs.recipe import InputOptions
from services.jobs.steps.decontaminate import DecontaminateOptions

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MIN_WORDS = 5
SLOTS_PER_RUN = 8  # of the table of marks, at least: at most one run in eight is looked up in vain


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
    """The number of each run of words of the evaluation sets, with the record that holds the run."""

    def __init__(self, options: DecontaminateOptions) -> None:
        self._ngram = options.ngram
        self._hashes = WordHashes()
        self._names: list[str] = []  # of the records
        numbers: dict[int, list[Any]] = defaultdict(list)  # length → for each text, its runs of that length
        owners: dict[int, list[int]] = defaultdict(list)
        for name in options.against:
            self._add(name, numbers, owners)
        self._tables = {length: RunTable(numbers[length], owners[length]) for length in sorted(numbers)}

    def _add(self, name: str, numbers: dict[int, list[Any]], owners: dict[int, list[int]]) -> None:
        before = sum(map(len, numbers.values()))
        for conversation in read(name, InputOptions(unlearnable="keep"), Ledger(), _refuse):
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
        said = words("\n".join(turn.text for turn in conversation.turns))
        for length, found in runs(self._hashes.of(said), self._ngram):
            if (table := self._tables.get(length)) and (hit := table.first_hit(found)):
                start, owner = hit
                return f"{self._names[owner]}: {' '.join(said[start : start + length])}"
        return None


class RunTable:
    """All runs of one length, sorted, each with the first record that has it. Most look-ups end at a table of marks."""

    def __init__(self, numbers: "list[NDArray[np.uint64]]", owners: list[int]) -> None:
        import numpy as np

        self._known, first = np.unique(np.concatenate(numbers), return_index=True)
        self._owners = np.repeat(owners, [len(some) for some in numbers])[first]
        self._mask = np.uint64((SLOTS_PER_RUN << len(self._known).bit_length()) - 1)
        self._marked = np.zeros(int(self._mask) + 1, bool)
        self._marked[self._known & self._mask] = True

    def first_hit(self, found: "NDArray[np.uint64]") -> tuple[int, int] | None:
        """Where in `found` the first known run is, and whose it is."""
        import numpy as np

        likely = np.flatnonzero(self._marked[found & self._mask])
        places = np.minimum(np.searchsorted(self._known, found[likely]), len(self._known) - 1)
        hits = np.flatnonzero(self._known[places] == found[likely])
        return (int(likely[hits[0]]), int(self._owners[places[hits[0]]])) if len(hits) else None


def _refuse(line: dict[str, Any]) -> None:
    """An evaluation set with a hole would let its questions through in silence."""
    file, number = line["source"]
    raise ConfigurationError(
        f"evaluation set {file}, record at line {number}: {line['reason']} {line['detail']}; mend it or take it out"
    )
