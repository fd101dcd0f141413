"""Keeps the first of several records that are alike, wherever in the input they stand, and rejects the others.

exact   the same roles and texts but for line ends and white space at the end of lines and turns (`duplicate`);
        indentation counts, since it is the meaning of some code
ids     an id that an earlier record has (`duplicate_id`)
near    much the same words of user and assistant (`near_duplicate`): MinHash with 128 permutations over runs of 5
        words. Locality-sensitive hashing proposes pairs (95 in 100 of similarity 0.8 at `threshold` 0.8, nearly all
        above), which join if their 128 values estimate at least `threshold` (standard error 0.035 at 0.8).
        Only records of one guard are compared: the same numbers, signs, operators and emoji in the same order, and the
        same words in the last answer if it has fewer than 20. "5 + 8" is not "5 - 8", C++ not C#, and one long question
        answered with 391 and with 392 stays twice; commas, quotes, dashes and capitals make no difference.
        The answers alone must reach half of `threshold`: questions about one long document share nearly all words

A rejected record no longer counts: a later record may have its text or its id. The step seeks near duplicates among the
records that `exact` and `ids` leave. Records that are alike, directly or by way of others, form a cluster. Its first
record stays, the records that are alike to it are rejected, and so on with the rest of the cluster. So each rejected
record is itself alike to a record that stays. After MAX_KEPT records of a cluster stayed, all others stay too.

`judge` reads the signatures from their files once for each band and holds one number of each record, so that memory
grows by about 100 bytes for each record and 150 more for each that ends. A bucket of many (texts that share
boilerplate) is compared with at most MAX_REPRESENTATIVES of its members, each the first of those that are like none
before: n records cost some n comparisons, not n².
"""

from collections.abc import Iterator, Mapping, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from pipelines.records.conversation import Conversation
from pipelines.steps import Barrier, Verdict
from pipelines.text.words import WordHashes, longest_runs, marks, words
from services.jobs.steps.deduplicate import DeduplicateOptions

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Indices = NDArray[np.int64]
    Reasons = NDArray[np.uint8]  # for each record a place in REASONS
    Alike = Any  # (Indices, Indices) -> NDArray[np.bool_]

REASONS = ("kept", *DeduplicateOptions.reasons)
KEY_BYTES = 16  # of a text and of an id: two different ones never agree by chance
NOBODY = -1
SHINGLE_WORDS = 5
NUM_PERM = 128
GUARD_BYTES = 8  # of a multiple of 4: it is read as numbers with the values that follow it
NUM_ANSWER_PERM = 64  # of the answers' own sketch, which only tells much from little (standard error 0.06)
NEAR_BYTES = GUARD_BYTES + 4 * (NUM_PERM + NUM_ANSWER_PERM)
MIN_ANSWER_SHARE = 0.5  # of the threshold: one other word in an answer of 20 changes half of its runs
SHORT_ANSWER_WORDS = 20  # with fewer, one word is much of the answer and little of the record
SHORT_ANSWER_CHARS = 400  # that hold more words than that, mostly
# The permutations are datasketch's "affine32" of this seed. Signatures live no longer than a run.
SEED = 1
MAX_BANDING_THRESHOLD = 0.95  # above it there would be too few bands to find anything with
MISS_WEIGHTS = (0.05, 0.95)  # a pair found in vain costs a comparison, one not found is lost
MAX_REPRESENTATIVES = 8
MAX_KEPT = 64
SHINGLES_AT_ONCE = 512  # 256 KiB in the permutations; larger arrays are mapped anew each time, four times as slow
RECORDS_AT_ONCE = 4_096


def build(options: DeduplicateOptions) -> Barrier:
    return Deduplicate(options)


class Deduplicate:
    """A signature: keys of text and id, guard, MinHash values of all and of the answers.

    A part that is switched off is left out.
    """

    def __init__(self, options: DeduplicateOptions) -> None:
        self.threshold = options.threshold
        self.exact = options.exact
        self.ids = options.ids == "reject"
        self.sketch = Sketch() if options.near else None
        self.keys_bytes = KEY_BYTES * (self.exact + self.ids)
        self.signature_bytes = self.keys_bytes + (NEAR_BYTES if options.near else 0)

    def sign(self, conversation: Conversation) -> bytes:
        parts = []
        if self.exact:
            parts.append(_text_key(conversation))
        if self.ids:
            parts.append(_key(conversation.id.encode("utf-8", "surrogatepass")))
        if self.sketch is not None:
            parts += [_guard(_said(conversation), _last_answer(conversation)), *self.sketch.both(conversation)]
        return b"".join(parts)

    def judge(self, signatures: Sequence[Path]) -> list[Mapping[int, Verdict]]:
        files = SignatureFiles(signatures, self.signature_bytes)
        first, reasons = self._same_keys(files)
        if self.sketch is not None:
            _join_near(files, self.keys_bytes, self.threshold, first, reasons)
        return _verdicts(files, first, reasons)

    def _same_keys(self, files: "SignatureFiles") -> tuple["Indices", "Reasons"]:
        """For each record the kept one that it repeats (or itself), and why the others end."""
        import numpy as np

        first = np.arange(files.num_records)
        named = ["duplicate"] * self.exact + ["duplicate_id"] * self.ids
        groups = {REASONS.index(name): _groups(files, i * KEY_BYTES) for i, name in enumerate(named)}
        return first, _keep_first(first, groups)


class Sketch:
    """The MinHash of a text: for each permutation h → a h + b mod 2^32 (a odd) the least value of all shingles.

    The numbers are those of datasketch's "affine32", whose import takes 0.7 s and 60 MB. Not for two threads at once.
    """

    def __init__(self) -> None:
        import numpy as np

        random = np.random.RandomState(SEED)  # its stream is frozen; a Generator's is not
        self._hashes = WordHashes()
        self._factors = random.randint(0, 1 << 31, NUM_PERM, np.uint32) * np.uint32(2) + np.uint32(1)
        self._summands = random.randint(0, 1 << 32, NUM_PERM, np.uint32)

    def both(self, conversation: Conversation) -> tuple[bytes, bytes]:
        """The values of all that was said, and of the answers: no word reaches from one turn into another.

        A shingle within an answer is one of both. It is permuted once.
        """
        import numpy as np

        told = [turn for turn in conversation.turns if turn.role != "system"]
        hashes = [self._hashes.of(words(turn.text)) for turn in told]
        turns = np.repeat(np.arange(len(told)), list(map(len, hashes)))  # for each word
        is_answer = np.array([turn.role == "assistant" for turn in told], bool)
        of_answers = is_answer[turns]
        said = np.concatenate([np.zeros(0, np.uint64), *hashes])
        if np.count_nonzero(of_answers) < SHINGLE_WORDS:
            answers = "\n".join(turn.text for turn in told if turn.role == "assistant")
            return (
                self._values(said, _said(conversation), NUM_PERM),
                self._values(said[of_answers], answers, NUM_ANSWER_PERM),
            )
        within = _within_turns(turns)
        both = within & of_answers[: len(within)]
        shingles, joints = _shingles(said), _shingles(said[of_answers])[~_within_turns(turns[of_answers])]
        shared = self._least(shingles[both], NUM_PERM)
        all_told = np.minimum(shared, self._least(shingles[~both], NUM_PERM))
        answered = np.minimum(shared[:NUM_ANSWER_PERM], self._least(joints, NUM_ANSWER_PERM))
        return _as_bytes(all_told), _as_bytes(answered)

    def values(self, text: str, number: int = NUM_PERM) -> bytes:
        """So many little-endian 32-bit values."""
        return self._values(self._hashes.of(words(text)), text, number)

    def _values(self, hashes: "NDArray[np.uint64]", text: str, number: int) -> bytes:
        """Of the hashes of a text's words. A text without any word is its own only shingle."""
        if not len(hashes):
            hashes = self._hashes.of([text.strip()])
        return _as_bytes(self._least(_shingles(hashes), number))

    def _least(self, shingles: "NDArray[np.uint32]", number: int) -> "NDArray[np.uint32]":
        """For each of so many permutations the least value; the greatest number of all for no shingle."""
        import numpy as np

        values = np.full(number, 0xFFFFFFFF, np.uint32)
        for start in range(0, len(shingles), SHINGLES_AT_ONCE):
            some = shingles[start : start + SHINGLES_AT_ONCE, np.newaxis]
            values = np.minimum(values, (some * self._factors[:number] + self._summands[:number]).min(axis=0))
        return values


def _shingles(hashes: "NDArray[np.uint64]") -> "NDArray[np.uint32]":
    import numpy as np

    return _mixed((longest_runs(hashes, SHINGLE_WORDS) >> np.uint64(32)).astype(np.uint32))


def _within_turns(turns: "NDArray[np.int64]") -> "NDArray[np.bool_]":
    """For each shingle of words of these turns, whether it is of one turn. Needs so many words."""
    found: NDArray[np.bool_] = turns[SHINGLE_WORDS - 1 :] == turns[: len(turns) - SHINGLE_WORDS + 1]
    return found


def _as_bytes(values: "NDArray[np.uint32]") -> bytes:
    return values.astype("<u4").tobytes()


def _mixed(values: "NDArray[np.uint32]") -> "NDArray[np.uint32]":
    """The finalizer of MurmurHash3: every bit of a value bears upon every bit of the result."""
    import numpy as np

    values = (values ^ (values >> np.uint32(16))) * np.uint32(0x85EBCA6B)
    values = (values ^ (values >> np.uint32(13))) * np.uint32(0xC2B2AE35)
    return values ^ (values >> np.uint32(16))


class SignatureFiles:
    """All records' signatures, numbered through over the files; read in pieces, never all in memory."""

    def __init__(self, paths: Sequence[Path], signature_bytes: int) -> None:
        import numpy as np

        self._paths = paths
        self._signature_bytes = signature_bytes
        lengths = [path.stat().st_size // signature_bytes if signature_bytes else 0 for path in paths]
        self.starts: Indices = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        self.num_records = int(self.starts[-1])

    def pieces(self) -> Iterator["NDArray[np.uint8]"]:
        """Each (records, signature_bytes), in order."""
        import numpy as np

        for path in self._paths:
            with path.open("rb") as file:
                while piece := file.read(RECORDS_AT_ONCE * self._signature_bytes):
                    yield np.frombuffer(piece, np.uint8).reshape(-1, self._signature_bytes)

    def rows(self, records: "Indices", start_byte: int) -> "NDArray[np.uint32]":
        """The values from `start_byte` on of some records, given in rising order."""
        import numpy as np

        found = []
        shards = self.shards_of(records)
        for shard in np.unique(shards):
            with self._paths[shard].open("rb") as file:
                for index in (records[shards == shard] - self.starts[shard]).tolist():
                    file.seek(index * self._signature_bytes + start_byte)
                    found.append(file.read(self._signature_bytes - start_byte))
        return np.frombuffer(b"".join(found), "<u4").reshape(len(records), -1)

    def shards_of(self, records: "Indices") -> "Indices":
        import numpy as np

        return np.searchsorted(self.starts, records, side="right") - 1


def _text_key(conversation: Conversation) -> bytes:
    return _key(orjson.dumps([[turn.role, _trimmed(turn.text)] for turn in conversation.turns]))


def _trimmed(text: str) -> str:
    return "\n".join(map(str.rstrip, text.split("\n"))).rstrip()


def _key(data: bytes) -> bytes:
    return blake2b(data, digest_size=KEY_BYTES).digest()


def _said(conversation: Conversation) -> str:
    return "\n".join(turn.text for turn in conversation.turns if turn.role != "system")


def _last_answer(conversation: Conversation) -> str:
    return next((turn.text for turn in reversed(conversation.turns) if turn.role == "assistant"), "")


def _guard(said: str, answer: str) -> bytes:
    """What near duplicates must have in common beside most of their words."""
    answered = words(answer[:SHORT_ANSWER_CHARS].casefold())
    if len(answered) <= SHORT_ANSWER_WORDS:  # the last one may be cut
        answered = words(answer.casefold())
    if len(answered) >= SHORT_ANSWER_WORDS:
        answered = []
    common = "\0".join([*marks(said), "\n", *answered])
    return blake2b(common.encode("utf-8", "surrogatepass"), digest_size=GUARD_BYTES).digest()


def _groups(files: SignatureFiles, start_byte: int) -> "Indices":
    """For each record the number of its group: those with the same key at `start_byte`."""
    import numpy as np

    if not files.num_records:
        return np.zeros(0, np.int64)
    end_byte = start_byte + KEY_BYTES
    keys = np.concatenate([piece[:, start_byte:end_byte].copy().view("<u8") for piece in files.pieces()])
    order = np.lexsort((keys[:, 0], keys[:, 1]))
    ordered = keys[order]
    begins = np.any(ordered[1:] != ordered[:-1], axis=1)
    groups = np.empty(len(keys), np.int64)
    groups[order] = np.concatenate([[0], np.cumsum(begins)])
    return groups


def _keep_first(first: "Indices", groups: Mapping[int, "Indices"]) -> "Reasons":
    """Goes through the records that share a key, in order; writes whom they repeat into `first`."""
    import numpy as np

    shared = np.zeros(len(first), bool)
    for numbers in groups.values():
        shared |= np.bincount(numbers)[numbers] > 1
    owners = {reason: np.full(len(first), NOBODY) for reason in groups}
    reasons = np.zeros(len(first), np.uint8)
    for record in np.flatnonzero(shared).tolist():
        for reason, numbers in groups.items():
            if (owner := owners[reason][numbers[record]]) != NOBODY:
                first[record], reasons[record] = owner, reason
                break
        else:
            for reason, numbers in groups.items():
                owners[reason][numbers[record]] = record
    return reasons


def _join_near(files: SignatureFiles, start_byte: int, threshold: float, first: "Indices", reasons: "Reasons") -> None:
    """Near duplicates among the records that are still kept, written into `first` and `reasons`."""
    import numpy as np

    def alike(a: "Indices", b: "Indices") -> "NDArray[np.bool_]":
        return _alike(files, start_byte, threshold, a, b)

    kept = np.flatnonzero(first == np.arange(len(first)))
    chained = Clusters(np.arange(len(first)))
    for keys in _bands(files, start_byte, threshold):
        _join_groups(kept, keys[kept], chained, alike, MAX_REPRESENTATIVES)
    _join_groups(kept, chained.flatten()[kept], Clusters(first), alike, MAX_KEPT)
    reasons[kept[first[kept] != kept]] = REASONS.index("near_duplicate")


class Clusters:
    """Union-find over records, in place: the root of each cluster is its first record."""

    def __init__(self, first: "Indices") -> None:
        self._first = first

    def root(self, record: int) -> int:
        while (parent := int(self._first[record])) != record:
            self._first[record] = self._first[parent]
            record = parent
        return record

    def join(self, a: int, b: int) -> None:
        a, b = self.root(a), self.root(b)
        self._first[max(a, b)] = min(a, b)

    def flatten(self) -> "Indices":
        """Every record now points to its root; returns the roots."""
        while not (self._first[self._first] == self._first).all():
            self._first[:] = self._first[self._first]
        return self._first


def banding(threshold: float) -> tuple[int, int]:
    """(bands, rows of each) that make the fewest weighted mistakes, if all similarities were as frequent.

    A pair of similarity s agrees in one band at least with the probability 1 - (1 - s^rows)^bands.
    """
    import numpy as np

    similarity = (np.arange(1_000) + 0.5) / 1_000
    in_vain, missed = MISS_WEIGHTS
    below = similarity < threshold

    def mistakes(bands_and_rows: tuple[int, int]) -> float:
        bands, rows = bands_and_rows
        proposed = 1 - (1 - similarity**rows) ** bands
        return float(in_vain * proposed[below].sum() + missed * (1 - proposed[~below]).sum())

    return min(((b, r) for b in range(1, NUM_PERM + 1) for r in range(1, NUM_PERM // b + 1)), key=mistakes)


def _bands(files: SignatureFiles, start_byte: int, threshold: float) -> Iterator["NDArray[np.uint64]"]:
    """For each band of the signatures a key for each record: the same guard and rows, the same key."""
    import numpy as np

    num_bands, num_rows = banding(min(threshold, MAX_BANDING_THRESHOLD))
    factor = np.uint64(0x9E3779B97F4A7C15)
    for band in range(num_bands):
        begin = start_byte + GUARD_BYTES + 4 * num_rows * band
        keys = [np.zeros(0, np.uint64)]
        for piece in files.pieces():
            key = piece[:, start_byte : start_byte + GUARD_BYTES].copy().view("<u8")[:, 0] * factor
            for column in piece[:, begin : begin + 4 * num_rows].copy().view("<u4").T:
                key = (key ^ column) * factor
            keys.append(key)
        yield np.concatenate(keys)


def _join_groups(kept: "Indices", keys: "NDArray[Any]", clusters: Clusters, alike: "Alike", num_rounds: int) -> None:
    """Joins the records of one key that are alike to its first, then those of the rest to the first of these …"""
    import numpy as np

    order = np.argsort(keys, kind="stable")
    records, keys = kept[order], keys[order]
    for _ in range(num_rounds):
        begins = np.concatenate([[True], keys[1:] != keys[:-1]])
        others = ~begins
        if not others.any():
            return
        representatives = records[begins][np.cumsum(begins) - 1][others]
        records, keys = records[others], keys[others]
        left = _join_pairs(representatives, records, clusters, alike)
        records, keys = records[left], keys[left]


def _join_pairs(a: "Indices", b: "Indices", clusters: Clusters, alike: "Alike") -> "NDArray[np.bool_]":
    """Joins each pair that is alike; returns which are not. Pairs of one cluster need no comparison."""
    import numpy as np

    roots = clusters.flatten()
    apart = np.flatnonzero(roots[a] != roots[b])
    left = np.zeros(len(a), bool)
    for start in range(0, len(apart), RECORDS_AT_ONCE):
        some = apart[start : start + RECORDS_AT_ONCE]
        found = alike(a[some], b[some])
        left[some[~found]] = True
        for pair in some[found].tolist():
            clusters.join(int(a[pair]), int(b[pair]))
    return left


def _alike(files: SignatureFiles, start_byte: int, threshold: float, a: "Indices", b: "Indices") -> "NDArray[np.bool_]":
    """Whether the guards are one and the shares of equal values, which estimate the Jaccard similarity, are enough."""
    import numpy as np

    records, places = np.unique(np.concatenate([a, b]), return_inverse=True)
    rows = files.rows(records, start_byte)
    equal: NDArray[np.bool_] = rows[places[: len(a)]] == rows[places[len(a) :]]
    guard, values, answers = np.split(equal, [GUARD_BYTES // 4, GUARD_BYTES // 4 + NUM_PERM], axis=1)
    alike: NDArray[np.bool_] = guard.all(axis=1) & (values.sum(axis=1) >= threshold * NUM_PERM)
    alike &= answers.sum(axis=1) >= threshold * MIN_ANSWER_SHARE * NUM_ANSWER_PERM
    return alike


def _verdicts(files: SignatureFiles, first: "Indices", reasons: "Reasons") -> list[Mapping[int, Verdict]]:
    """By shard. A record kept instead of another is itself kept: `first` is followed to its end."""
    import numpy as np

    Clusters(first).flatten()
    ended = np.flatnonzero(reasons)
    shards, twin_shards = files.shards_of(ended), files.shards_of(first[ended])
    indices, twins = ended - files.starts[shards], first[ended] - files.starts[twin_shards]
    verdicts: list[dict[int, Verdict]] = [{} for _ in files.starts[1:]]
    for shard, index, reason, *twin in zip(shards, indices, reasons[ended], twin_shards, twins, strict=True):
        verdicts[shard][int(index)] = Verdict(REASONS[reason], (int(twin[0]), int(twin[1])))
    return list(verdicts)
