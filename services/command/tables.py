"""Prints plain tables and JSON to stdout."""

import json
from collections.abc import Mapping, Sequence
from typing import Any


def print_json(value: object) -> None:
    print(json.dumps(value, indent=2, ensure_ascii=False))


def print_table(rows: Sequence[Mapping[str, Any]], columns: str) -> None:
    """Aligned columns, numbers to the right; `columns` names the fields to show."""
    names = columns.split()
    cells = [names, *([_cell(row[name]) for name in names] for row in rows)]
    widths = [max(len(line[index]) for line in cells) for index in range(len(names))]
    numeric = [bool(rows) and all(isinstance(row[name], int | float) for row in rows) for name in names]
    for line in cells:
        aligned = (
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(line, widths, numeric, strict=True)
        )
        print("  ".join(aligned).rstrip())


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.1f}" if value == 0 or abs(value) >= 0.05 else f"{value:.2g}"  # a learning rate
    return str(value) if value not in ("", None) else "-"
