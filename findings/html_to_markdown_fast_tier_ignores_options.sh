#!/usr/bin/env bash
# html-to-markdown 3.21.2: the converter has two tiers that should differ in speed. TierStrategy.TIER1, the fast one, takes
# the same options object and ignores some of it: `bullets` in nested lists and `compact_tables`, without a warning.
#
# Expected: the same text from every tier, or an error for options that a tier does not know.
# Seen:     nested item with bullets="-": AUTO and TIER2 "  - deep", TIER1 "  * deep"
#           compact_tables=True: AUTO and TIER2 "| --- | --- |", TIER1 "| --- | ----------- |"
# Our code: the fast tier is not used; the default one is, with golden pairs for each kind of element.
set -euo pipefail
# shellcheck source=findings/_setup.sh
source "$(dirname "$0")/_setup.sh"
install html-to-markdown==3.21.2

python - <<'EOF'
import sys

from html_to_markdown import ConversionOptions, TierStrategy, convert

LIST = "<ul><li>one</li><li>two<ul><li>deep</li></ul></li></ul>"
TABLE = "<table><tr><th>a</th><th>long header</th></tr><tr><td>1</td><td>2</td></tr></table>"
differing = 0
for html, line in ((LIST, -1), (TABLE, 1)):
    texts = {}
    for name in ("AUTO", "TIER2", "TIER1"):
        options = ConversionOptions(bullets="-", compact_tables=True, tier_strategy=getattr(TierStrategy, name))
        texts[name] = convert(html, options).content
        print(f"{name:6} {texts[name].splitlines()[line]!r}")
    differing += texts["AUTO"] == texts["TIER2"] != texts["TIER1"]
if differing != 2:
    sys.exit("changed: the fast tier heeds an option that it ignored")
EOF
