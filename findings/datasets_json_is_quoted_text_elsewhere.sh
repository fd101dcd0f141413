#!/usr/bin/env bash
# datasets 5.0.1 (the same in 5.2.0) and pyarrow 26.0.1 over one Parquet file: a field whose rows hold different kinds of
# JSON gets the feature Json() by itself. In Parquet that is text in JSON's spelling under an extension type, so a reader
# without `datasets` gets every string of the field in quotes, and objects as text.
#
# Expected: text stays text in a column that other readers understand, or writing says that the type is the library's own.
# Seen:     written  {"result": "fine"} and {"result": {"code": 7}}
#           datasets reads 'fine', {'code': 7};  pyarrow reads '"fine"', '{"code":7}'
# Our code: writes Parquet with a schema of its own; what is open-ended stands in one field, `extra`, as JSON text.
set -euo pipefail
# shellcheck source=findings/_setup.sh
source "$(dirname "$0")/_setup.sh"
install datasets==5.0.1 pyarrow==26.0.1

printf '%s\n' '{"result": "fine"}' '{"result": {"code": 7}}' >rows.jsonl
python - <<'EOF'
import sys

import pyarrow.parquet
from datasets import Dataset

written = Dataset.from_json("rows.jsonl")
written.to_parquet("rows.parquet")
print("feature:", written.features["result"])
theirs = Dataset.from_parquet("rows.parquet")["result"][:]
plain = pyarrow.parquet.read_table("rows.parquet")
print(f"datasets reads {theirs}; pyarrow reads {plain['result'].to_pylist()} of type {plain.schema.field('result').type}")
if plain["result"].to_pylist() != ['"fine"', '{"code":7}']:
    sys.exit("changed: another reader gets the text as it was")
EOF
