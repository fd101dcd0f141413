"""HTML to markdown, stage by stage: `nice python -m bench.html [--in turns.jsonl] [--megabytes 4] [--json]`.

MB of UTF-8 that comes in per second of processor time: telling HTML from text, the pre-pass, the whole of each
converter, and each converter alone on what the pre-pass leaves. The documents are the assistant turns of a JSONL in
ShareGPT's shape, or are built here from a seed: paragraphs, code in the export's frame, nested lists, tables, formulas.
"""

import argparse
import html
import json
import random
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from pipelines.html.convert import CONVERTERS, Converter, to_markdown
from pipelines.html.detect import looks_like_html
from pipelines.html.prepass import prepare

TEXT = (
    "the model returns a list of values and then we can use this function to sort them by key in place while the"
    " server_name keeps its state between requests so that each worker reads from one queue at a time however note"
    " performance depends on memory latency cache size data structure algorithm complexity example following steps"
)
WORDS = TEXT.split()
CODE = """def {name}(values, *, limit={number}):
    \"\"\"Return the sum of all values < limit & more.\"\"\"

    total = 0
    for index, value in enumerate(values):
        if value < limit and index % 2 == 0:
            total += value * {number}
    return total


print({name}([1, 2, 3]))
"""
KEYWORDS = ("def", "return", "for", "in", "if", "and", "print")
BLOCK_WEIGHTS = {"paragraph": 55, "code": 12, "bullets": 14, "numbers": 10, "table": 3, "formula": 3, "heading": 3}


def build_turns(num_bytes: int, seed: int = 0) -> list[str]:
    """Exported answers, about `num_bytes` of UTF-8 together."""
    generator = random.Random(seed)
    turns, size = [], 0
    while size < num_bytes:
        turn = _turn(generator)
        turns.append(turn)
        size += len(turn.encode())
    return turns


def _turn(generator: random.Random) -> str:
    kinds = generator.choices(list(BLOCK_WEIGHTS), list(BLOCK_WEIGHTS.values()), k=generator.randint(2, 12))
    counter = "<p>2 / 2</p>" if generator.random() < 0.03 else ""
    body = "".join(BLOCKS[kind](generator) for kind in kinds)
    return f'{counter}<div class="markdown prose w-full break-words dark:prose-invert light">{body}</div>'


def _sentence(generator: random.Random) -> str:
    words = generator.choices(WORDS, k=generator.randint(6, 22))
    if generator.random() < 0.2:
        words[2] = f"<code>{words[2]}_{words[3]}()</code>"
    if generator.random() < 0.15:
        words[4] = f"<strong>{words[4]} {words[5]}</strong>"
    return " ".join(words).capitalize() + "."


def _text(generator: random.Random) -> str:
    return " ".join(_sentence(generator) for _ in range(generator.randint(1, 5)))


def _paragraph(generator: random.Random) -> str:
    return f"<p>{_text(generator)}</p>"


def _heading(generator: random.Random) -> str:
    return f"<h3>{' '.join(generator.choices(WORDS, k=4)).title()}</h3>"


def _code(generator: random.Random) -> str:
    source = html.escape(CODE.format(name=generator.choice(WORDS), number=generator.randint(2, 99)), quote=False)
    for keyword in KEYWORDS:
        source = source.replace(f"{keyword} ", f'<span class="hljs-keyword">{keyword}</span> ')
    return (
        '<pre><div class="bg-black mb-4 rounded-md"><div class="flex items-center relative text-gray-200 bg-gray-800 '
        'px-4 py-2 text-xs font-sans"><span class="">python</span><button class="flex ml-auto gap-2">'
        '<svg stroke="currentColor" fill="none" viewBox="0 0 24 24" class="h-4 w-4"><path d="M16 4h2a2 2 0 0 1 2'
        ' 2v14a2 2 0 0 1-2 2H6"></path></svg>'
        'Copy code</button></div><div class="p-4 overflow-y-auto"><code class="!whitespace-pre hljs language-python">'
        f"{source}</code></div></div></pre>"
    )


def _items(generator: random.Random, depth: int = 0) -> Iterator[str]:
    for _ in range(generator.randint(2, 6)):
        nested = f"<ul>{''.join(_items(generator, depth + 1))}</ul>" if depth < 2 and generator.random() < 0.15 else ""
        yield f"<li>{_sentence(generator)}{nested}</li>"


def _bullets(generator: random.Random) -> str:
    return f"<ul>{''.join(_items(generator))}</ul>"


def _numbers(generator: random.Random) -> str:
    items = "".join(f"<li><p>{_text(generator)}</p></li>" for _ in range(generator.randint(2, 6)))
    return f"<ol>{items}</ol>"


def _table(generator: random.Random) -> str:
    def row(tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{generator.choice(WORDS)}</{tag}>" for _ in range(4)) + "</tr>"

    rows = "".join(row("td") for _ in range(generator.randint(2, 8)))
    return f"<table><thead>{row('th')}</thead><tbody>{rows}</tbody></table>"


def _formula(generator: random.Random) -> str:
    tex = rf"x_{{{generator.randint(1, 9)}}} = \frac{{a}}{{b}} \cdot y^2"
    drawn = '<span class="mord mathnormal">x</span><span class="msupsub"></span><span class="mrel">=</span>' * 3
    return (
        '<p>So <span class="math math-inline"><span class="katex">'
        '<span class="katex-mathml"><math><semantics><mrow>'
        f'<mi>x</mi><mo>=</mo></mrow><annotation encoding="application/x-tex">{tex}</annotation>'
        "</semantics></math></span>"
        f'<span class="katex-html" aria-hidden="true">{drawn}</span></span></span> holds.</p>'
    )


BLOCKS: dict[str, Callable[[random.Random], str]] = {
    "paragraph": _paragraph,
    "code": _code,
    "bullets": _bullets,
    "numbers": _numbers,
    "table": _table,
    "formula": _formula,
    "heading": _heading,
}


def read_turns(path: Path) -> list[str]:
    """The answers of a JSONL whose records have `conversations` of `from` and `value`."""
    records = map(json.loads, path.read_text("utf-8").splitlines())
    return [turn["value"] for record in records for turn in record["conversations"] if turn["from"] == "gpt"]


def megabytes_per_s(turns: list[str], stage: Callable[[Any], object], inputs: list[Any] | None = None) -> float:
    """Speed of the stage in MB of the turns' own bytes; `inputs` are what it gets instead of the turns."""
    num_bytes = sum(len(turn.encode()) for turn in turns)
    begun_at = time.process_time()
    for item in turns if inputs is None else inputs:
        stage(item)
    return round(num_bytes / 1e6 / (time.process_time() - begun_at), 2)


def measure(turns: list[str]) -> dict[str, float]:
    """Stage → MB/s."""
    speeds = {"detect": megabytes_per_s(turns, looks_like_html), "prepass": megabytes_per_s(turns, prepare)}
    names: list[Converter] = ["html-to-markdown", "markdownify"]
    for name in names:
        to_markdown(turns[0], name)  # loads the library
        speeds[f"{name} whole"] = megabytes_per_s(turns, lambda turn, name=name: to_markdown(turn, name))
    prepared = [prepare(turn).html for turn in turns]
    for name in names:
        speeds[f"{name} alone"] = megabytes_per_s(turns, CONVERTERS[name], prepared)
    return speeds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--in", dest="path", type=Path, help="JSONL in ShareGPT's shape instead of built documents")
    parser.add_argument("--megabytes", type=float, default=4.0)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    turns = read_turns(options.path) if options.path else build_turns(int(options.megabytes * 1e6))
    speeds = measure(turns)
    if options.json:
        json.dump(speeds, sys.stdout)
        return
    print(f"{len(turns)} turns, {sum(len(turn.encode()) for turn in turns) / 1e6:.1f} MB, one core")
    for stage, speed in speeds.items():
        print(f"{stage:24} {speed:8.2f} MB/s")


if __name__ == "__main__":
    main()
