"""The charts of the report page, as SVG that needs no script: horizontal bars and histograms of two sets.

Colours and type come from the page's style sheet by class, so they follow its light and dark scheme.
"""

from collections.abc import Mapping, Sequence

from markupsafe import Markup, escape

WIDTH = 640
ROW = 24
LABEL = 230  # width of the labels of horizontal bars
NUMBER = 80  # width of the numbers behind them
PLOT = 160  # height of a histogram
AXIS = 26
MAX_TICKS = 9


def bars(rows: Sequence[tuple[str, int]], title: str) -> Markup:
    """One horizontal bar for each (label, count), the longest for the greatest count; nothing of nothing."""
    if not rows:
        return Markup("")
    greatest = max(count for _, count in rows) or 1
    parts = []
    for number, (label, count) in enumerate(rows):
        y, width = number * ROW, max((WIDTH - LABEL - NUMBER) * count / greatest, 1)
        parts.append(
            f'<text class="label" x="{LABEL - 8}" y="{y + 16}">{escape(shortened(label))}</text>'
            f'<rect class="after" x="{LABEL}" y="{y + 4}" width="{width:.1f}" height="{ROW - 8}" rx="2"/>'
            f'<text class="number" x="{LABEL + width + 6:.1f}" y="{y + 16}">{count:,}</text>'
        )
    return _svg(len(rows) * ROW, title, parts)


def shortened(label: str, most: int = 34) -> str:
    return label if len(label) <= most else label[: most - 1] + "…"


def histogram(before: Mapping[str, int], after: Mapping[str, int], title: str) -> Markup:
    """Shares of two sets side by side; the keys are the least lengths of their buckets."""
    floors = sorted({int(key) for key in (*before, *after)})
    if not floors:
        return Markup("")
    shares = {name: _shares(counts, floors) for name, counts in (("before", before), ("after", after))}
    greatest = max(max(found) for found in shares.values()) or 1
    step = WIDTH / len(floors)
    parts = [f'<line class="axis" x1="0" x2="{WIDTH}" y1="{PLOT + 0.5}" y2="{PLOT + 0.5}"/>']
    for offset, (name, found) in enumerate(shares.items()):
        for index, (floor, share) in enumerate(zip(floors, found, strict=True)):
            height, x = (PLOT - 14) * share / greatest, (index + 0.08 + 0.42 * offset) * step
            parts.append(
                f'<rect class="{name}" x="{x:.1f}" y="{PLOT - height:.1f}" width="{0.42 * step:.1f}" '
                f'height="{height:.1f}"><title>from {floor:,}: {share:.1%} {name}</title></rect>'
            )
    every = -(-len(floors) // MAX_TICKS)
    parts += [
        f'<text class="tick" x="{(index + 0.5) * step:.1f}" y="{PLOT + 18}">{floor:,}</text>'
        for index, floor in enumerate(floors)
        if index % every == 0
    ]
    return _svg(PLOT + AXIS, f"{title}; greatest share {greatest:.0%}", parts)


def _shares(counts: Mapping[str, int], floors: Sequence[int]) -> list[float]:
    total = sum(counts.values()) or 1
    return [counts.get(str(floor), 0) / total for floor in floors]


def _svg(height: int, title: str, parts: Sequence[str]) -> Markup:
    head = f'<svg viewBox="0 0 {WIDTH} {max(height, 1)}" role="img" aria-label="{escape(title)}">'
    return Markup(head + "".join(parts) + "</svg>")
