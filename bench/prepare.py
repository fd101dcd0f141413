"""How long the training program takes to tokenize and pack its data.

    python -m bench.prepare --conversations 20000

The conversations are made of random words, one to four rounds each; the model is the packaged one. Memory is that of
this process; the processes that share the work have their own.
"""

import argparse
import random
import resource
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import orjson

from pipelines.training.data import prepare
from services.jobs.training import checked_training
from services.models.catalogue import resolve
from services.tokens.tokenization import load_tokenizer

PACKAGED = "smollm2-135m"
WORDS = "the of and a model training data answer question for with from token sequence river mountain list return"


def conversations(num: int) -> Iterator[dict[str, Any]]:
    chance, words = random.Random(0), WORDS.split()
    for number in range(num):
        turns = []
        for _ in range(chance.choice((1, 1, 2, 3, 4))):
            for role, most in (("user", 60), ("assistant", 200)):
                turns.append({"role": role, "content": " ".join(chance.choices(words, k=chance.randint(5, most)))})
        yield {"id": f"c{number}", "messages": turns}


def cpu_s() -> float:
    used = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(each.ru_utime + each.ru_stime for each in used)


def main() -> None:
    parser = argparse.ArgumentParser("python -m bench.prepare", description="Preparation of training data.")
    parser.add_argument("--conversations", type=int, default=20_000)
    parser.add_argument("--alone", action="store_true", help="in this process only")
    given = parser.parse_args()
    load = partial(load_tokenizer, resolve(PACKAGED))
    config = checked_training({"name": "bench", "model": PACKAGED, "seq_len": 1024})
    with tempfile.TemporaryDirectory() as name:
        data = Path(name) / "data.jsonl"
        with data.open("wb") as file:  # one by one: the peak of memory shall be the preparation's
            file.writelines(orjson.dumps(each) + b"\n" for each in conversations(given.conversations))
        tokenizer, begun, used = load(), time.monotonic(), cpu_s()
        found = prepare([data], tokenizer, config, 64, Path(name), load=None if given.alone else load)
        wall_s = time.monotonic() - begun
    peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f"{found.counts.examples:,} conversations, {found.counts.tokens:,} tokens: {wall_s:.1f} s, "
        f"{cpu_s() - used:.1f} s of processors, {peak_mib:.0f} MiB at most"
    )


if __name__ == "__main__":
    main()
