#!/usr/bin/env bash
# evalica 0.4.2: Bradley-Terry scores of an arena in which one model won all its games. Such a model has no finite strength,
# and the library neither says so nor puts it first: all models get the same score.
#
# Expected: the unbeaten model far ahead (or infinite), or an error.
# Seen:     A beats B 10:0, B and C 5:5 → A, B and C 1e-06 each; `newman` gives the same, average_win_rate A 1.0, B 0.25
# Our code: gives each model one tie with an imaginary average one, which makes every strength finite.
set -euo pipefail
# shellcheck source=findings/_setup.sh
source "$(dirname "$0")/_setup.sh"
install evalica==0.4.2

python - <<'EOF'
import sys

import evalica
from evalica import Winner

left, right = ["A"] * 10 + ["B"] * 10, ["B"] * 10 + ["C"] * 10
winners = [Winner.X] * 10 + [Winner.X] * 5 + [Winner.Y] * 5
for method in (evalica.average_win_rate, evalica.newman, evalica.bradley_terry):
    scores = method(left, right, winners).scores
    print(f"{method.__name__:17}", {name: float(score) for name, score in sorted(scores.items())})
if scores["A"] > scores["B"]:
    sys.exit("changed: the unbeaten model scores higher than those it beat")
EOF
