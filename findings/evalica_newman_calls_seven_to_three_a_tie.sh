#!/usr/bin/env bash
# evalica 0.4.2: Newman's method, a faster way to Bradley-Terry's scores, gives two models that played 7:3 the same score.
# It does not converge without ties among the games, stops at its limit of 100 rounds, and returns the start.
#
# Expected: what Bradley-Terry gives, a ratio of 7:3; or an error that it did not converge.
# Seen:     bradley_terry A 1.5275, B 0.6547 after 2 iterations;  newman A 1.0, B 1.0 after 100 of 100 iterations
# Our code: rates models with `bradley_terry`.
set -euo pipefail
# shellcheck source=findings/_setup.sh
source "$(dirname "$0")/_setup.sh"
install evalica==0.4.2

python - <<'EOF'
import sys

import evalica
from evalica import Winner

games = (["A"] * 10, ["B"] * 10, [Winner.X] * 7 + [Winner.Y] * 3)
for method in (evalica.bradley_terry, evalica.newman):
    result = method(*games)
    scores = {name: round(float(score), 4) for name, score in sorted(result.scores.items())}
    print(f"{method.__name__:14} {scores} after {result.iterations} of {result.limit} iterations")
if scores["A"] != scores["B"]:
    sys.exit("changed: seven to three is no tie")
EOF
