"""What is broken is repaired; what is only unusual stays."""

import unicodedata

import pytest
from ftfy.badness import is_bad
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.steps.repair_unicode import MAY_BE_MOJIBAKE, build
from services.jobs.steps.repair_unicode import RepairUnicodeOptions
from tests.pipelines.steps.local import Ran, answered, talk

STEP = build(RepairUnicodeOptions())

BROKEN = [
    ("schÃ¶ne GrÃ¼ÃŸe", "schöne Grüße", {"mojibake"}),
    ("donâ€™t", "don’t", {"mojibake"}),
    ("æ—¥æœ¬èªž", "日本語", {"mojibake"}),
    ("ÐŸÑ€Ð¸Ð²ÐµÑ‚", "Привет", {"mojibake"}),
    ("fine\ncafÃ©\nfine", "fine\ncafé\nfine", {"mojibake"}),
    ("a\r\nb\rc\n", "a\nb\nc\n", {"line_ends"}),
    ("a\x00b\x08\x7f", "ab", {"control_characters"}),
    ("one\x0ctwo\x0bthree\x1ffour", "one\ntwo\nthree four", {"control_characters"}),
    ("voilÃ , donc", "voilà , donc", {"mojibake"}),
    ("cafÃ©, and the letter Ã is", "café, and the letter Ã is", {"mojibake"}),
    ("\ufeffa", "a", {"control_characters"}),
    ("\x1b[31mred\x1b[0m \x1b]0;title\x07x", "red x", {"terminal_escapes"}),
    ("\ud83d\ude00 \ud83d.", "😀 \ufffd.", {"surrogates"}),
]

KEPT = [
    "“curled” ‘quotes’ — and … dots",
    "ﬁne ligatures, Ｗｉｄｔｈ, ½, ①, ﾊﾝｶｸ",
    "&lt;b&gt; &amp; &eacute;",
    "a\u2028b\u2029c\x85".replace("\x85", ""),
    "tabs\tand\n\n\nblank lines\n",
    "e\u0301 stays decomposed",
    "zero\u200dwidth 👩\u200d💻 नमस्\u200dते",
    "Ça va? À la carte. Œuvre. ÂGE. Ünïcödé",
    "Приве́т, καλημέρα, שלום, こんにちは, 你好，世界",
    "│ box ├── drawing └── tree",
    "A letra Ã é usada",
    "Â « oui »",
    "as letras Ã e Õ",
    "AMANHÃ é outro dia",
    "Why do I see Ã© instead of é?",
    "A text in UTF-8 that is read as Latin-1 shows cafÃ© and donâ€™t.",
    "That is mojibake:\n\nschÃ¶ne GrÃ¼ÃŸe",
    "price: 5 £, 5 €, §12, 50 µm ± 2 °C",
]


@pytest.mark.parametrize(("text", "repaired", "kinds"), BROKEN)
def test_what_is_broken_is_repaired_and_counted_by_kind(text: str, repaired: str, kinds: set[str]) -> None:
    result = Ran(STEP, answered(text))
    assert result.texts[1] == repaired
    assert set(result.counts.changed) == kinds


@pytest.mark.parametrize("text", KEPT)
def test_what_is_only_unusual_stays(text: str) -> None:
    given = answered(text)
    [kept] = Ran(STEP, given).kept
    assert kept is given


def test_code_survives_byte_for_byte() -> None:
    code = '```c\nprintf("%s\\x00", L"“ﬁ”");  // caf\u00e9 &amp;\n\n\n\tx = a  <  b;   \n```'
    [kept] = Ran(STEP, talk("u:" + code, "a:" + code)).kept
    assert [turn.text for turn in kept.turns] == [code, code]


def test_mojibake_in_code_is_what_somebody_wrote_and_around_it_damage() -> None:
    text = 'donâ€™t\n```\ns = "cafÃ©"\n\n    x  = “1”\n```\nin `Ã©`, cafÃ©'
    assert Ran(STEP, answered(text)).texts[1] == 'don’t\n```\ns = "cafÃ©"\n\n    x  = “1”\n```\nin `Ã©`, café'


def test_composition_is_normalized_only_if_asked() -> None:
    step = build(RepairUnicodeOptions(normalization="NFC"))
    assert Ran(step, answered("cafe\u0301")).texts[1] == "café"


MENTIONED = st.characters(max_codepoint=0x4FF) | st.characters(min_codepoint=0x2000, max_codepoint=0x25FF)


@given(st.text(st.sampled_from("ГўВЂ™€ÂÃ œŒa°×²√±‚Äìвβ¡") | MENTIONED | st.characters(), max_size=8))
def test_ftfy_is_asked_whenever_its_own_test_could_succeed(text: str) -> None:
    assert MAY_BE_MOJIBAKE.search(text) or not is_bad(text)


@settings(deadline=None)  # ftfy is loaded by the first that needs it
@given(st.text(st.characters(max_codepoint=0x200) | st.characters(), max_size=30))
def test_no_text_keeps_a_control_character_or_a_surrogate(text: str) -> None:
    [_, repaired] = Ran(STEP, answered(text)).texts
    assert not [char for char in repaired if unicodedata.category(char) in ("Cc", "Cs") and char not in "\n\t"]
