"""Keeps or skips conversations by their language, which lingua detects offline from a sample of their prose.

The detector (all 75 languages; low accuracy mode is enough for samples of some hundred characters) is loaded by the
first conversation that needs it, once per process. It works in the calling thread alone and takes about 1 ms for 100
characters. So the step takes a text with many English function words, as most data has, for English without asking it.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

from pipelines.records.conversation import Conversation, Turn
from pipelines.records.ledger import Ledger
from pipelines.steps import Step
from pipelines.text.prose import prose
from services.errors import ConfigurationError
from services.jobs.steps.languages import LanguagesOptions

MAX_SAMPLE_CHARS = 320
MAX_DETECTED_CHARS = 200  # of the sample; more takes as much longer and changes no verdict
MAX_TURN_CHARS = 110  # so that a sample is of three turns at least, if there are so many
MAX_READ_CHARS = 1000  # of a turn, code and all
MIN_LETTERS = 60  # Latin ones: "hello" could be Sotho, a short haiku Estonian
MIN_CONFIDENCE = 0.7  # of lingua, whose confidences in all languages add up to 1
MIN_LETTERS_NOT_LATIN = 3  # their script tells much more
SHOWN_CANDIDATES = 3  # in the reject file

UNKNOWN = "unknown"

# About half of the words of running English, and of no other language.
FUNCTION_WORDS = """
the of and to in is you that it he was for on are as with his they i at be this have from or had by but what some we can
out other were all there when your how an which do their if will about would so these her
"""
ENGLISH = frozenset(FUNCTION_WORDS.split())
MIN_ENGLISH_WORDS = 20
MIN_WORDS_IF_SHORT = 10  # where lingua has too few letters to go by
MIN_FUNCTION_SHARE = 0.2  # running English has 0.2 to 0.5, other languages less than 0.1
MIN_FUNCTION_KINDS = 5
HINDI_WORDS = """
aur bhai bhi ek hai hain ho hota ja ka kaise kar karta ke ki ko kya me mein nahi par se tha wo ye
"""
HINDI = frozenset(HINDI_WORDS.split())

_NO_LETTERS = re.compile(r"[\W\d_]+")
_NOT_LATIN = re.compile("[^\u0000-\u024f\u1e00-\u1eff]")


@dataclass(frozen=True, slots=True)
class Detection:
    """The ISO 639-1 code of a text's language, or `unknown`; lingua's likeliest languages with their confidences.

    There are no candidates where lingua was not asked: too few letters, or plainly English words.
    """

    language: str
    candidates: tuple[tuple[str, float], ...] = ()

    def as_dict(self) -> dict[str, Any]:
        return {"language": self.language, "candidates": [[code, round(score, 3)] for code, score in self.candidates]}


def build(options: LanguagesOptions) -> Step:
    _check(options)
    detect = detect_sides if options.sides == "apart" else _detect_together

    def is_wanted(language: str) -> bool:
        return language in options.keep if options.keep else language not in options.skip

    def step(conversations: Iterable[Conversation], ledger: Ledger) -> Iterator[Conversation]:
        for conversation in conversations:
            found = detect(conversation)
            named = {name: detection.language for name, detection in found.items()}
            ledger.changed(f"language:{named['language']}")
            known = conversation
            for name, language in named.items():
                known = known.with_finding(name, language)
            languages = [language for language in dict.fromkeys(named.values()) if language != UNKNOWN]
            unwanted = [language for language in languages if not is_wanted(language)]
            numbers = {name: detection.as_dict() for name, detection in found.items()}
            if unwanted:
                ledger.reject(known, "language", ", ".join(unwanted), numbers)
            elif not languages and options.unknown == "reject":
                ledger.reject(known, "unknown_language", UNKNOWN, numbers)
            else:
                yield known

    return step


def _detect_together(conversation: Conversation) -> dict[str, Detection]:
    return {"language": detect(conversation.turns)}


def detect_sides(conversation: Conversation) -> dict[str, Detection]:
    """The record's language is that of its answers. A side may be one turn, so a turn may be the whole sample."""
    answers = detect([turn for turn in conversation.turns if turn.role == "assistant"], MAX_SAMPLE_CHARS)
    questions = detect([turn for turn in conversation.turns if turn.role != "assistant"], MAX_SAMPLE_CHARS)
    return {"language": answers, "question_language": questions}


def detect(turns: Iterable[Turn], max_turn_chars: int = MAX_TURN_CHARS) -> Detection:
    """Of the prose of these turns; from each, at most so many characters."""
    sample = _sample(turns, max_turn_chars)
    if _is_plainly_english(sample, MIN_ENGLISH_WORDS):
        return Detection("en")
    letters = _NO_LETTERS.sub("", sample)
    if len(letters) < MIN_LETTERS and len(_NOT_LATIN.findall(letters)) < MIN_LETTERS_NOT_LATIN:
        return Detection("en" if _is_plainly_english(sample, MIN_WORDS_IF_SHORT) else UNKNOWN)
    candidates = tuple(_detector()(sample[:MAX_DETECTED_CHARS]))
    is_sure = bool(candidates) and candidates[0][1] >= MIN_CONFIDENCE and not _is_hindi_in_latin_letters(sample)
    return Detection(candidates[0][0] if is_sure else UNKNOWN, candidates)


def _is_plainly_english(text: str, min_words: int) -> bool:
    return _consists_of(ENGLISH, text, min_words, ("the",))


def _is_hindi_in_latin_letters(text: str) -> bool:
    """Lingua does not know it, and is 95 in 100 sure of Estonian or Swahili."""
    return _consists_of(HINDI, text, MIN_WORDS_IF_SHORT, ("hai", "hain", "kya", "nahi", "aur"))


def _consists_of(function_words: frozenset[str], text: str, min_words: int, one_of: tuple[str, ...]) -> bool:
    """Whether so many of the words are function words, of several kinds, and one of these among them."""
    words = [word.strip(",.?!") if function_words is HINDI else word for word in text.lower().split()]
    found = [word for word in words if word in function_words]
    if len(words) < min_words or len(found) < MIN_FUNCTION_SHARE * len(words):
        return False
    return len(set(found)) >= MIN_FUNCTION_KINDS and any(word in found for word in one_of)


def _sample(turns: Iterable[Turn], max_turn_chars: int) -> str:
    """Prose from the beginning of each turn, about MAX_SAMPLE_CHARS of all."""
    pieces, num_chars = [], 0
    for turn in turns:
        if turn.role != "system" and num_chars < MAX_SAMPLE_CHARS:
            piece = " ".join(prose(turn.text[:MAX_READ_CHARS], " ").split())[:max_turn_chars]
            pieces.append(piece)
            num_chars += len(piece)
    return "\n".join(pieces)


@cache
def _detector() -> Callable[[str], Iterator[tuple[str, float]]]:
    """A text → its likeliest languages with their confidences, the likeliest first."""
    from lingua import LanguageDetectorBuilder

    detector = LanguageDetectorBuilder.from_all_languages().with_low_accuracy_mode().build()

    def candidates(text: str) -> Iterator[tuple[str, float]]:
        for likely in detector.compute_language_confidence_values(text)[:SHOWN_CANDIDATES]:
            yield _code(likely.language), likely.value

    return candidates


def _check(options: LanguagesOptions) -> None:
    from lingua import Language

    known = {_code(language) for language in Language.all()}
    if wrong := sorted({*options.keep, *options.skip} - known):
        raise ConfigurationError(f"languages: {', '.join(wrong)} cannot be detected; known: {', '.join(sorted(known))}")


def _code(language: Any) -> str:
    name: str = language.iso_code_639_1.name
    return name.lower()
