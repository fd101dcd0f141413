"""The command: `python -m bench.corpus --megabytes 50 --seed 1 --out FILE [--format json|jsonl]`."""

import argparse
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from bench.corpus import Format, conversations, lines


def write(path: Path, records: Iterable[dict[str, Any]], layout: Format, num_bytes: int | None = None) -> int:
    """Writes records as they are made, until they end or the file has `num_bytes`. Returns its size."""
    with path.open("wb") as file:
        wanted = records if num_bytes is None else _while_smaller(records, file.tell, num_bytes)
        for line in lines(wanted, layout):
            file.write(line)
        return file.tell()


def _while_smaller(records: Iterable[dict[str, Any]], size: Any, num_bytes: int) -> Iterator[dict[str, Any]]:
    for record in records:
        if size() >= num_bytes:
            return
        yield record


def main() -> None:
    parser = argparse.ArgumentParser(description="Writes a raw corpus in the shape of ShareGPT's dumps.")
    size = parser.add_mutually_exclusive_group(required=True)
    size.add_argument("--megabytes", type=float, help="10^6 bytes; the last record goes beyond")
    size.add_argument("--records", type=int)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--format", choices=("json", "jsonl"), default="json")
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    num_bytes = None if given.megabytes is None else int(given.megabytes * 1e6)
    written = write(given.out, islice(conversations(given.seed), given.records), given.format, num_bytes)
    print(f"{given.out}: {written / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
