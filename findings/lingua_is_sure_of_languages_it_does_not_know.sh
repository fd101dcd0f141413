#!/usr/bin/env bash
# lingua-language-detector 2.1.1: its confidences are shares among the languages that it knows. Of Hindi in Latin letters,
# which chat logs are full of, low accuracy mode is 99 in 100 sure that it is Esperanto: as sure as of a text in a language
# that it knows, so that no threshold parts the two.
#
# Expected: a low confidence for a text in none of its languages.
# Seen:     ESPERANTO 0.99 and FINNISH 0.89 for two answers in Hindi; ESTONIAN 1.00 for one that is Estonian
# Our code: takes a text with many Hindi function words in Latin letters for `unknown` before it believes lingua.
set -euo pipefail
# shellcheck source=findings/_setup.sh
source "$(dirname "$0")/_setup.sh"
install lingua-language-detector==2.1.1

python - <<'EOF'
import sys

from lingua import LanguageDetectorBuilder

detector = LanguageDetectorBuilder.from_all_languages().with_low_accuracy_mode().build()
texts = {
    "Hindi": "Ye system pehle data ko load karta hai aur phir usko process karke result dikhata hai, simple hai bhai.",
    "Hindi too": "Ek baar ki baat hai, ek chhote se gaon me ek ladka rehta tha jo bahut mehnati tha.",
    "Estonian": "Eile käisime metsas seeni korjamas ja leidsime nii palju, et korvid said kiiresti täis.",
}
sure = {}
for name, text in texts.items():
    likeliest = detector.compute_language_confidence_values(text)[0]
    sure[name] = likeliest.value
    print(f"{name:10} {likeliest.language.name} {likeliest.value:.2f}")
if max(sure["Hindi"], sure["Hindi too"]) < 0.9:
    sys.exit("changed: it is no longer sure of a language that it does not know")
EOF
