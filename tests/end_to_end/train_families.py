"""The training program, run once for each folder given: one process, which loads torch once.

python -m tests.end_to_end.train_families FOLDER…     # each has config.yaml and data.jsonl
"""

import sys
from pathlib import Path

from pipelines.training import __main__ as program

if __name__ == "__main__":
    for folder in map(Path, sys.argv[1:]):
        sys.argv[1:] = ["--config", str(folder / "config.yaml"), "--data", str(folder / "data.jsonl")]
        sys.argv += ["--out", str(folder / "out")]
        if code := program.main():
            sys.exit(code)
