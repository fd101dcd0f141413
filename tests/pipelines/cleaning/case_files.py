"""Inputs as people have them, and what cleaning makes of each: `cases.jsonl`, a case a line.

    case, file   its name, and the name of the input
    text, bytes  the input; `bytes` in base64
    plain        what a recipe of `html_to_markdown` and `roles` leaves: kept records, rejected and cut reasons
    vicuna       the same of infra/recipes/vicuna.yaml

A record is its id and its texts; texts of many characters stand as a digest. `test_cases.py` compares. After a
change of behaviour that is meant, `python -m tests.pipelines.cleaning.case_files` writes the file anew: read its diff.
"""

import base64
import hashlib
import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from pipelines import steps
from pipelines.formats.read import read
from pipelines.formats.write import sharegpt
from pipelines.records.conversation import Conversation
from pipelines.records.ledger import Ledger
from services.errors import ConfigurationError
from services.jobs.recipe import parse_recipe
from services.places import ROOT
from tests.pipelines.steps.barriers import judged

FILE = Path(__file__).with_name("cases.jsonl")
PLAIN = "name: plain\nsteps:\n  - html_to_markdown\n  - roles: {min_chars: 0}\noutput: {format: sharegpt-jsonl}\n"
RECIPES = {"plain": PLAIN, "vicuna": (ROOT / "infra/recipes/vicuna.yaml").read_text("utf-8")}
SHOWN_CHARS = 400


def cases() -> list[dict[str, Any]]:
    return [json.loads(line) for line in FILE.read_text("utf-8").split("\n") if line]


def place(case: dict[str, Any], folder: Path) -> Path:
    """The input of a case as a file in the folder."""
    path = folder / case["file"]
    path.write_bytes(base64.b64decode(case["bytes"]) if "bytes" in case else case["text"].encode())
    return path


class Cleaner:
    """One recipe in this process. Its steps are built once."""

    def __init__(self, text: str) -> None:
        self.recipe = parse_recipe(text)
        self._steps = [(choice, steps.build(choice, self.recipe)) for choice in self.recipe.steps]

    def records(self, path: Path, reasons: list[str]) -> list[Conversation]:
        """What is left of a file. `reasons` gets `step/reason` of each reject, and of each cut."""

        def told(step: str) -> Any:
            return lambda line: reasons.append(f"{step}/{line['reason']}")

        records = list(read(str(path), self.recipe.input, Ledger(), told("read")))
        for choice, step in self._steps:
            if choice.options.barrier:
                gone = judged(step, [records])
                reasons += [f"{choice.name}/{verdict.reason}" for verdict in gone.values()]
                records = [record for index, record in enumerate(records) if (0, index) not in gone]
            else:
                records = list(step(records, Ledger(choice.name, told(choice.name))))
        return records

    def outcome(self, path: Path) -> dict[str, Any]:
        reasons: list[str] = []
        try:
            kept = self.records(path, reasons)
        except ConfigurationError as error:
            return {"refused": str(error).replace(str(path), path.name)}
        return {"kept": [shown(record) for record in kept], **({"reasons": reasons} if reasons else {})}

    def again(self, path: Path) -> tuple[list[Any], list[Any]]:
        """The records that a first and a second run leave: the second reads what the first wrote."""
        first = self.records(path, [])
        path.with_name("again.jsonl").write_text("\n".join(json.dumps(sharegpt(record)) for record in first))
        return [whole(record) for record in first], [whole(r) for r in self.records(path.with_name("again.jsonl"), [])]


def shown(record: Conversation) -> list[str]:
    texts = [turn.text for turn in record.turns]
    if sum(map(len, texts)) > SHOWN_CHARS:
        return [record.id, "digest " + hashlib.blake2b("\0".join(texts).encode(), digest_size=8).hexdigest()]
    return [record.id, *texts]


def whole(record: Conversation) -> tuple[Any, ...]:
    return record.id, record.turns, dict(record.extra), record.model, record.origin


def main() -> None:
    cleaners = {name: Cleaner(text) for name, text in RECIPES.items()}
    made = cases()
    with TemporaryDirectory() as folder:
        for case in made:
            path = place(case, Path(folder))
            case.update({name: cleaner.outcome(path) for name, cleaner in cleaners.items()})
    FILE.write_text("".join(json.dumps(case, ensure_ascii=False) + "\n" for case in made), "utf-8")


if __name__ == "__main__":
    main()
