"""Of alike records the first stays: exact, by id and near, over all shards, and the same however they were cut."""

import random
import subprocess
import sys
from collections.abc import Sequence

import numpy as np
import pytest
from datasketch import MinHash, MinHashLSH
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.records.conversation import Conversation, Source, Turn
from pipelines.steps import deduplicate
from pipelines.steps.deduplicate import MAX_REPRESENTATIVES, NUM_PERM, SEED, Clusters, Sketch, _join_groups, build
from pipelines.text.words import WordHashes, longest_runs, words
from services.errors import ConfigurationError
from services.jobs.recipe import parse_recipe
from services.jobs.steps.deduplicate import DeduplicateOptions
from tests.pipelines.steps.barriers import cut, ended, judged, survivors
from tests.pipelines.steps.local import talk

EXACT = build(DeduplicateOptions(ids="keep", near=False))
IDS = build(DeduplicateOptions(exact=False, near=False))
KEYS = build(DeduplicateOptions(near=False))
NEAR = build(DeduplicateOptions(exact=False, ids="keep"))
ALL = build(DeduplicateOptions())

LONG = "The tide rises twice a day because the moon pulls at the water and the earth turns beneath it without a pause"
VOCABULARY = [f"word{number}" for number in range(3000)]


def test_the_second_of_two_equal_records_ends_whatever_the_line_ends_and_trailing_white_space() -> None:
    records = [
        talk("u:Hi", "a:one  two\nthree\n"),
        talk("u:Hi ", "a:one  two \r\nthree"),
        talk("u:Hi", "a:one  twothree"),
    ]
    assert ended(EXACT, records) == {1: ("duplicate", 0)}


def test_other_indentation_is_other_code() -> None:
    both, first_only = "if x:\n    a()\n    b()", "if x:\n    a()\nb()"
    assert ended(EXACT, [talk("u:Hi", f"a:{both}"), talk("u:Hi", f"a:{first_only}")]) == {}


def test_the_same_text_in_other_roles_or_other_turns_is_another_record() -> None:
    records = [talk("u:a b"), talk("a:a b"), talk("u:a", "u:b"), talk("u:a b", "a:"), talk("s:x", "u:a b")]
    assert ended(EXACT, records) == {}


def test_the_second_record_with_an_id_ends_if_the_recipe_says_so() -> None:
    records = [talk("u:one", id="x"), talk("u:two", id="x"), talk("u:three", id="y")]
    assert ended(IDS, records) == {1: ("duplicate_id", 0)}
    assert ended(EXACT, records) == {}


def test_a_record_that_ended_frees_its_id_and_its_text() -> None:
    """Or the only good copy would go, for the sake of one that goes as well."""
    first, same_text, same_id, text_again = "u:one", "u:one", "u:two", "u:two"
    records = [talk(first, id="a"), talk(same_text, id="b"), talk(same_id, id="b"), talk(text_again, id="c")]
    assert ended(KEYS, records) == {1: ("duplicate", 0), 3: ("duplicate", 2)}
    records = [talk("u:one", id="a"), talk("u:two", id="a"), talk("u:two", id="b")]
    assert ended(KEYS, records) == {1: ("duplicate_id", 0)}


def test_near_duplicates_end_and_a_text_of_its_own_stays() -> None:
    records = [talk(f"u:{LONG}"), talk("u:What is a neap tide, and when is it seen?"), talk(f"u:{LONG}!".upper())]
    assert ended(NEAR, records) == {2: ("near_duplicate", 0)}


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("if count < limit:", "if count > limit:"),
        ("if (!ready) return", "if (ready) return"),
        ("what is 5 - 8", "what is 5 + 8"),
        ("what is -8", "what is 8"),
        ("from 5 to 8", "from 8 to 5"),
        ("共391个", "共392个"),
        ("5km away", "6km away"),
        ("write it in C++", "write it in C#"),
        ("write it in C", "write it in C++"),
        ("I feel 😀", "I feel 😡"),
        ("a[0]", "a{0}"),
        ("for 5 €", "for 5 £"),
    ],
)
def test_a_number_an_operator_or_an_emoji_makes_another_record(one: str, other: str) -> None:
    for turns in (("u:{} " + LONG,), ("u:" + LONG + " {}", "a:" + LONG)):
        assert ended(NEAR, [talk(*(turn.format(text) for turn in turns)) for text in (one, other)]) == {}


@pytest.mark.parametrize(
    "other",
    [
        "Twice a day — “the tide's” pull — 1990–2000, 5 − 3, isn't it…?",
        "twice a day: 'the tide’s' pull; (1990-2000) 5 - 3! Isn't it.",
        "Twice a day - `the tide's` pull - 1990-2000, 5 - 3: isn´t it?!",
    ],
)
def test_punctuation_quotes_and_dashes_do_not(other: str) -> None:
    one = "Twice a day, \"the tide's\" pull, 1990-2000, 5 - 3, isn't it?"
    assert ended(NEAR, [talk(f"u:{LONG}. {text}") for text in (one, other)]) == {1: ("near_duplicate", 0)}


def test_a_short_last_answer_must_be_the_same() -> None:
    question = "u:" + " ".join(VOCABULARY[:200])
    records = [talk(question, f"a:{answer}") for answer in ("391", "392", "Yes, it is.", "No, it is.", "yes it is")]
    assert ended(NEAR, records) == {4: ("near_duplicate", 2)}
    long = [f"a:{LONG} and so does the {who}" for who in ("sea", "sand")]
    assert ended(NEAR, [talk(question, answer) for answer in long]) == {1: ("near_duplicate", 0)}


def test_two_questions_about_one_long_document_stay_though_nearly_all_words_are_the_same() -> None:
    """A longer last answer was just more words beside those of the document: the second question was gone."""
    document = " ".join(random.Random(1).choices(VOCABULARY, k=400))
    answers = [" ".join(random.Random(seed).choices(VOCABULARY, k=26)) for seed in (2, 3)]
    asked = [talk(f"u:{document}\n\n{how}", f"a:{answers[n]}") for n, how in enumerate(("Sum it up.", "Sort it."))]
    assert ended(NEAR, asked) == {}
    again = talk(f"u:{document}\n\nSum it up!", f"a:{answers[0].replace(' ', ', ', 2)}")
    assert ended(NEAR, [*asked, again]) == {2: ("near_duplicate", 0)}


def test_the_system_turn_does_not_make_a_record_another() -> None:
    assert ended(NEAR, [talk(f"u:{LONG}"), talk("s:You are a pirate.", f"u:{LONG}")]) == {1: ("near_duplicate", 0)}


def test_short_texts_are_alike_only_as_a_whole() -> None:
    records = [
        talk("u:Hi there", "a:Hello."),
        talk("u:Hi there!", "a:hello"),
        talk("u:Hi there", "a:Bye."),
        talk("u:?!"),
    ]
    assert ended(NEAR, records) == {1: ("near_duplicate", 0)}
    assert ended(NEAR, [talk("u:?"), talk("u:!"), talk("u: ?")]) == {2: ("near_duplicate", 0)}


def test_scripts_without_spaces_are_compared_by_characters() -> None:
    chinese = (
        "潮汐是由月球和太阳的引力引起的海水周期性涨落现象每天通常有两次高潮和两次低潮人们很早就注意到了它与月亮的关系"
    )
    records = [talk("u:" + chinese), talk("u:" + chinese + "吗"), talk("u:" + chinese[::-1])]
    assert ended(NEAR, records) == {1: ("near_duplicate", 0)}


def test_twins_are_records_that_stay_even_over_several_reasons() -> None:
    other = LONG.replace("pause", "rest")
    records = [talk(f"u:{LONG}", id="a"), talk(f"u:{other}", id="b"), talk(f"u:{other} ", id="c"), talk("u:x", id="b")]
    loose = build(DeduplicateOptions(threshold=0.5))
    assert ended(loose, records) == {1: ("near_duplicate", 0), 2: ("duplicate", 0), 3: ("duplicate_id", 0)}


def edited(source: list[str], num_edits: int, rng: random.Random) -> list[str]:
    result = list(source)
    for place in rng.sample(range(len(result)), num_edits):
        result[place] = rng.choice(VOCABULARY)
    return result


def similarity(a: list[str], b: list[str]) -> float:
    ours, theirs = ({tuple(some[i : i + 5]) for i in range(len(some) - 4)} for some in (a, b))
    return len(ours & theirs) / len(ours | theirs)


@pytest.mark.parametrize("threshold", [0.5, 0.8, 0.95])
def test_near_duplicates_are_those_of_the_true_similarity_but_for_a_small_margin(threshold: float) -> None:
    """Of 1,000 edited texts. The estimate from 128 values has a standard error of at most 0.044: beyond 0.1 on either
    side of the threshold hardly a pair is judged wrongly, near it some are."""
    rng = random.Random(7)
    pairs = []
    for _ in range(1000):
        source = rng.choices(VOCABULARY, k=200)
        pairs.append((source, edited(source, int(40 * rng.random() ** 2), rng)))
    records = [talk("u:" + " ".join(text)) for pair in pairs for text in pair]
    gone = ended(build(DeduplicateOptions(exact=False, ids="keep", threshold=threshold)), records)
    assert all(twin == index - 1 for index, (_, twin) in gone.items())
    found = np.array([2 * number + 1 in gone for number in range(len(pairs))])
    truths = np.array([similarity(*pair) for pair in pairs])
    assert found[truths >= min(1, threshold + 0.1)].mean() >= 0.97
    assert found[truths < threshold - 0.1].mean() <= 0.03
    assert found[truths >= threshold].mean() >= 0.85  # recall
    assert (truths[found] >= threshold).mean() >= 0.85  # precision


def test_whatever_ends_is_alike_to_the_record_that_stays_not_only_to_another_that_ends() -> None:
    """Each text of the chain shares most with the one before; the last shares next to nothing with the first."""
    chain = [" ".join(VOCABULARY[start : start + 200]) for start in range(0, 200, 10)]
    gone = ended(NEAR, [talk("u:" + text) for text in chain])
    assert len(gone) >= len(chain) // 3
    truths = [similarity(chain[index].split(), chain[twin].split()) for index, (_, twin) in gone.items()]
    assert min(truths) >= 0.7  # the estimate has its error


TEXTS = st.sampled_from(
    ["one", "one ", "two", LONG, LONG + " or so", LONG.replace("moon", "sun"), LONG[5:], "", "?", "我想学" * 5]
)
RECORDS = st.lists(
    st.builds(lambda said, id: talk("u:" + said, "a:yes", id=id), TEXTS, st.sampled_from("abcdefgh")), max_size=12
)
BARRIERS = st.sampled_from([EXACT, IDS, KEYS, NEAR, ALL, build(DeduplicateOptions(threshold=0.5))])


@settings(max_examples=60, deadline=None)
@given(BARRIERS, RECORDS)
def test_survivors_are_the_same_however_the_records_were_cut(
    barrier: deduplicate.Deduplicate, records: Sequence[Conversation]
) -> None:
    whole = judged(barrier, [records])
    for num_shards in (3, 7):
        shards = cut(records, num_shards)
        starts = [sum(map(len, shards[:number])) for number in range(num_shards)]
        found = {
            (0, starts[shard] + index): (said.reason, (0, starts[said.twin[0]] + said.twin[1]))
            for (shard, index), said in judged(barrier, shards).items()
            if said.twin
        }
        assert found == {place: (said.reason, said.twin) for place, said in whole.items()}


@settings(max_examples=60, deadline=None)
@given(BARRIERS, RECORDS)
def test_every_record_stays_or_names_an_earlier_one_that_does(
    barrier: deduplicate.Deduplicate, records: Sequence[Conversation]
) -> None:
    gone = ended(barrier, records)
    for index, (_, twin) in gone.items():
        assert 0 <= twin < index
        assert twin not in gone
    kept = survivors(barrier, [records])
    assert len(kept) + len(gone) == len(records)
    if barrier.exact:
        assert len({kept_.turns[0].text.strip() for kept_ in kept}) == len(kept)
    if barrier.ids:
        assert len({kept_.id for kept_ in kept}) == len(kept)


@settings(deadline=None)
@given(RECORDS)
def test_by_keys_it_keeps_what_a_walk_through_the_input_would_keep(records: Sequence[Conversation]) -> None:
    kept: list[Conversation] = []
    for record in records:
        said = record.turns[0].text.strip()
        if all(said != other.turns[0].text.strip() and record.id != other.id for other in kept):
            kept.append(record)
    assert survivors(KEYS, [records]) == kept


def test_no_input_and_empty_shards_have_no_verdicts() -> None:
    assert judged(ALL, []) == {}
    assert judged(ALL, [[], []]) == {}


def test_signatures_are_the_same_in_every_process() -> None:
    program = """
from pipelines.records.conversation import Conversation, Source, Turn
from pipelines.steps.deduplicate import build
from services.jobs.steps.deduplicate import DeduplicateOptions
turns = (Turn("user", "What does the tide do?"), Turn("assistant", "It rises — twice a day."))
print(build(DeduplicateOptions()).sign(Conversation("c1", turns, Source("x", 1))).hex())
"""
    run = [
        subprocess.run(
            [sys.executable, "-c", program], env={"PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True
        ).stdout.strip()
        for seed in ("1", "2")
    ]
    here = ALL.sign(talk("u:What does the tide do?", "a:It rises — twice a day.")).hex()
    assert run == [here, here]


def test_a_sketch_is_what_datasketch_makes_of_the_shingles_one_by_one() -> None:
    text = " ".join(random.Random(3).choices(VOCABULARY, k=deduplicate.SHINGLES_AT_ONCE + 200))
    one_by_one = MinHash(NUM_PERM, seed=SEED, scheme="affine32", hashfunc=int)
    for shingle in longest_runs(WordHashes().of(words(text)), 5).tolist():
        one_by_one.update(shingle >> 32)
    assert np.frombuffer(Sketch().values(text), "<u4").tolist() == one_by_one.hashvalues.tolist()


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["system", "user", "assistant"]), st.lists(st.sampled_from(VOCABULARY[:9]), max_size=14)
        ),
        max_size=6,
    )
)
def test_both_sketches_of_a_record_are_those_of_its_texts(turns: list[tuple[str, list[str]]]) -> None:
    record = Conversation("c", tuple(Turn(role, " ".join(said)) for role, said in turns), Source("x", 1))
    said = "\n".join(turn.text for turn in record.turns if turn.role != "system")
    answers = "\n".join(turn.text for turn in record.turns if turn.role == "assistant")
    sketch = Sketch()
    assert sketch.both(record) == (sketch.values(said), sketch.values(answers, deduplicate.NUM_ANSWER_PERM))


def test_a_bucket_of_many_costs_a_bounded_number_of_comparisons_for_each() -> None:
    """Boilerplate puts half of a data set into one bucket: all pairs of it would take for ever."""
    num_records, compared = 1000, 0

    def never(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        nonlocal compared
        compared += len(a)
        return np.zeros(len(a), bool)

    everyone = np.arange(num_records)
    _join_groups(everyone, np.zeros(num_records, np.uint64), Clusters(everyone.copy()), never, MAX_REPRESENTATIVES)
    assert num_records < compared < MAX_REPRESENTATIVES * num_records


def test_several_families_in_one_bucket_each_keep_their_first() -> None:
    everyone = np.arange(12)
    clusters = Clusters(everyone.copy())
    _join_groups(everyone, np.zeros(12, np.uint64), clusters, lambda a, b: a % 3 == b % 3, MAX_REPRESENTATIVES)
    assert clusters.flatten().tolist() == [0, 1, 2] * 4


def test_a_recipe_that_looks_for_nothing_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="nothing to look for"):
        parse_recipe("steps:\n  - deduplicate: {exact: false, near: false, ids: keep}\n")


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.7, 0.8, 0.9, 0.95])
def test_the_bands_are_those_of_datasketch(threshold: float) -> None:
    plan = MinHashLSH(threshold, NUM_PERM, weights=deduplicate.MISS_WEIGHTS)
    assert deduplicate.banding(threshold) == (plan.b, plan.r)
