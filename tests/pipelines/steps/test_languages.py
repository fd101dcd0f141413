"""Languages by prose, offline."""

import subprocess
import sys

import pytest

from pipelines.records.conversation import Conversation
from pipelines.steps.languages import UNKNOWN, build, detect
from services.errors import ConfigurationError
from services.jobs.steps.languages import LanguagesOptions
from tests.pipelines.steps.local import Ran, talk

CODE = "```python\n# returns all of the items that are in the list\ndef f(items):\n    return [x for x in items]\n```"


def language_of(conversation: Conversation) -> str:
    return detect(conversation.turns).language


TALKS = {
    "en": talk(
        "u:How do I write a letter to my landlord about the broken heating?",
        "a:You should describe the problem, say when it began, and ask for a date by which it will be repaired.",
    ),
    "de": talk(
        "u:Wie koche ich Kartoffeln?", "a:Die Kartoffeln werden gewaschen und etwa zwanzig Minuten gekocht.\n" + CODE
    ),
    "ko": talk("u:안녕하세요", "a:안녕하세요! 무엇을 도와드릴까요?"),
    "ja": talk("u:日本の首都はどこですか", "a:東京です。"),
    "zh": talk("u:你好", "a:你好！有什么可以帮助你的吗？"),
    "fr": talk("u:Bonjour, comment ça va ?", "a:Très bien, merci. Que puis-je faire pour vous aujourd'hui ?"),
    "es": talk("u:¿Cuál es la capital de Perú?", "a:La capital de Perú es Lima, a orillas del océano Pacífico."),
    "ru": talk("u:Как дела?", "a:Спасибо, хорошо. Чем я могу помочь?"),
    "nl": talk("u:Hoe laat is het in Tokio?", "a:Het is daar acht uur later dan hier, dus het is al avond in de stad."),
}


@pytest.mark.parametrize("code", TALKS)
def test_a_language_is_detected_from_prose(code: str) -> None:
    assert language_of(TALKS[code]) == code


def test_code_has_no_language() -> None:
    assert language_of(talk("u:" + CODE, "a:" + CODE)) == "unknown"
    assert language_of(talk("u:hi", "a:hello")) == "unknown"


@pytest.mark.parametrize(
    "given",
    [
        talk("u:Write me a haiku", "a:Soft rain on the roof"),
        talk("u:What is 2+2?", "a:4 is the answer"),
        talk("u:Translate hello to Spanish", "a:Hola"),
    ],
)
def test_a_few_latin_words_could_be_of_any_language_and_are_kept(given: Conversation) -> None:
    assert language_of(given) == "unknown"
    assert Ran(build(LanguagesOptions(keep=("en",))), given).kept


def test_short_questions_that_are_plainly_english_are_english() -> None:
    assert language_of(talk("u:Who is it that you see in the garden?", "a:It is a cat.")) == "en"


def test_english_in_another_conversation_is_not_enough() -> None:
    said = "u:Translate this into German: the cat is on the table, and it is in the way of the dog that I have."
    answer = "a:" + "Die Katze liegt auf dem Tisch und steht dem Hund im Weg, den ich seit Jahren besitze. " * 3
    assert language_of(talk(said, answer, "u:Danke schön, das war sehr hilfreich für mich.", answer)) == "de"


def test_a_language_is_skipped_and_the_others_are_counted() -> None:
    """FastChat's recipe skips Korean."""
    result = Ran(build(LanguagesOptions(skip=("ko",))), *TALKS.values())
    assert result.reason == ("language", "ko")
    assert [kept.extra["language"] for kept in result.kept] == [code for code in TALKS if code != "ko"]
    assert result.counts.changed == {f"language:{code}": 1 for code in TALKS}


def test_only_the_languages_named_are_kept() -> None:
    result = Ran(
        build(LanguagesOptions(keep=("en", "de"), unknown="reject")), *TALKS.values(), talk("u:" + CODE, "a:" + CODE)
    )
    assert [kept.extra["language"] for kept in result.kept] == ["en", "de"]
    assert result.counts.rejected == {"language": len(TALKS) - 2, "unknown_language": 1}


def test_what_the_record_held_besides_stays() -> None:
    given = talk("u:안녕하세요", "a:안녕하세요!", extra={"tags": ["x"]})
    [kept] = Ran(build(LanguagesOptions(skip=("de",))), given).kept
    assert kept.extra == {"tags": ["x"], "language": "ko"}
    assert given.extra == {"tags": ["x"]}


def test_a_code_that_cannot_be_detected_is_refused_with_those_that_can() -> None:
    with pytest.raises(ConfigurationError, match=r"languages: xx cannot be detected; known: af, ar"):
        build(LanguagesOptions(keep=("xx",)))


def test_building_the_step_loads_no_detector() -> None:
    """A process that forks workers must not hold it."""
    program = (
        "from pipelines.steps import languages; from services.jobs.steps.languages import LanguagesOptions;"
        "languages.build(LanguagesOptions(skip=('ko',))); print(languages._detector.cache_info().currsize)"
    )
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert answer.stdout == "0\n"


def test_a_reject_says_how_sure_the_detector_was_and_what_else_it_might_be() -> None:
    """Hinglish was rejected as Estonian, and nothing in the line told how near the other languages were."""
    line = Ran(build(LanguagesOptions(keep=("en",))), TALKS["nl"]).lines[0]
    candidates = dict(line["language"]["candidates"])
    assert line["detail"] == line["language"]["language"] == next(iter(candidates)) == "nl"
    assert 0.7 <= candidates["nl"] <= 1 and len(candidates) == 3 and sum(candidates.values()) <= 1.001


GERMAN_QUESTION = "u:Bitte erkläre mir auf Englisch, wie ein Verbrennungsmotor funktioniert und wofür man ihn braucht."
ENGLISH_ANSWER = (
    "a:An engine burns fuel in its cylinders. The heat moves each piston, and they turn the shaft that drives the "
    "wheels of the car; all of this is for one thing, which is to get you from where you are to where you would be."
)


@pytest.mark.parametrize(
    ("options", "unwanted"),
    [
        ({"keep": ("en",)}, "de"),
        ({"skip": ("de",)}, "de"),
        ({"keep": ("de",)}, "en"),
        ({"keep": ("de", "en")}, ""),
    ],
)
def test_question_and_answer_are_judged_apart_by_option(options: dict[str, tuple[str, ...]], unwanted: str) -> None:
    """An English answer to a German question counted as one language, whichever had more of the sample."""
    ran = Ran(build(LanguagesOptions(sides="apart", **options)), talk(GERMAN_QUESTION, ENGLISH_ANSWER))
    if unwanted:
        assert ran.reason == ("language", unwanted)
        assert ran.lines[0]["question_language"]["language"] == "de"
    else:
        assert ran.kept[0].extra == {"language": "en", "question_language": "de"}


def test_a_side_of_unknown_language_follows_the_other() -> None:
    step = build(LanguagesOptions(keep=("en",), sides="apart", unknown="reject"))
    assert Ran(step, talk("u:hi", ENGLISH_ANSWER)).kept[0].extra["question_language"] == UNKNOWN
    assert Ran(step, talk("u:hi", "a:hello")).reason == ("unknown_language", UNKNOWN)


def test_what_the_input_says_of_the_language_stays() -> None:
    """WildChat says English; the step wrote its own guess in that place."""
    [kept] = Ran(build(LanguagesOptions(skip=("ko",))), talk("u:hi", "a:hello", extra={"language": "English"})).kept
    assert kept.extra == {"language": "unknown", "given_language": "English"}
    [again] = Ran(build(LanguagesOptions(skip=("ko",))), kept).kept
    assert again.extra == kept.extra


@pytest.mark.parametrize(
    "given",
    [
        talk(
            "u:Hinglish me batao ki ye kaise kaam karta hai bhai, jaldi se",
            "a:Ye system pehle data ko load karta hai aur phir usko process karke result dikhata hai, simple hai bhai.",
        ),
        talk(
            "u:Mujhe ek acchi si kahani sunao jo bacchon ko pasand aaye",
            "a:Ek baar ki baat hai, ek chhote se gaon me ek ladka rehta tha jo bahut mehnati tha.",
        ),
    ],
)
def test_hindi_in_latin_letters_is_no_estonian(given: Conversation) -> None:
    assert language_of(given) == "unknown"
    assert language_of(TALKS["de"]) == "de"
