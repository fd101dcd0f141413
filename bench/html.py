"""HTML to markdown, stage by stage: `nice python -m bench.html [--megabytes 4] [--json]`.

MB of UTF-8 that comes in per second of processor time: telling HTML from text, the pre-pass, each converter on what the
pre-pass leaves, and the whole of each, on the answers of `bench.corpus`.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from typing import Any

from bench.corpus import conversations
from pipelines.html.convert import CONVERTERS, Converter, to_markdown
from pipelines.html.detect import looks_like_html
from pipelines.html.prepass import prepare


def answers(seed: int, num_bytes: int) -> list[str]:
    """The HTML answers of the generated corpus, about `num_bytes` of UTF-8 together."""
    found: list[str] = []
    for record in conversations(seed):
        for turn in record["conversations"]:
            if looks_like_html(turn["value"]):
                found.append(turn["value"])
                num_bytes -= len(turn["value"].encode())
        if num_bytes <= 0:
            break
    return found


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
    parser.add_argument("--megabytes", type=float, default=4.0)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    turns = answers(1, int(options.megabytes * 1e6))
    speeds = measure(turns)
    if options.json:
        json.dump(speeds, sys.stdout)
        return
    print(f"{len(turns)} turns, {sum(len(turn.encode()) for turn in turns) / 1e6:.1f} MB, one core")
    for stage, speed in speeds.items():
        print(f"{stage:24} {speed:8.2f} MB/s")


if __name__ == "__main__":
    main()
