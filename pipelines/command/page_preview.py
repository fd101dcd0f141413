"""The preview of a fine-tuning for the page: `train preview` with an end in time and memory, and its result as JSON.

python -m pipelines.command.page_preview SPEC FOLDER     # a job's spec as JSON; FOLDER/result.json is the result

`pipelines/celery/preview_tasks.py` starts it: whoever presses the button waits, and other fine-tunings share the
machine. Of a large file it reads the beginning, in one process, and says so.
"""

import resource
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import orjson

from pipelines.command.preview import ReadData, read_data, shortened
from services.errors import ConfigurationError
from services.jobs.previews import NUM_EXAMPLES, PreviewExample, PreviewResult

RESULT = "result.json"  # `preview_tasks.py` looks for it
MOST_BYTES = 8 << 20  # of the data; below what the training would share among processes
MOST_MEMORY_BYTES = 4 << 30
MOST_CPU_S = 120
MOST_LINE_CHARS = 2_000


def main(spec: str, folder: str) -> None:
    resource.setrlimit(resource.RLIMIT_CPU, (MOST_CPU_S, MOST_CPU_S + 5))
    resource.setrlimit(resource.RLIMIT_DATA, (MOST_MEMORY_BYTES, MOST_MEMORY_BYTES))
    result = preview_of(orjson.loads(spec), Path(folder))
    (Path(folder) / RESULT).write_bytes(orjson.dumps(asdict(result)))


def preview_of(spec: Mapping[str, Any], folder: Path, most_bytes: int = MOST_BYTES) -> PreviewResult:
    """What the page shows. `folder` takes the beginnings of large files."""
    names = [Path(name) for name in spec["data"]]
    try:
        paths, share = _beginnings(names, folder, most_bytes)
        read = read_data(spec, paths, NUM_EXAMPLES, share)
    except ConfigurationError as error:
        return PreviewResult(problem=_words(error))
    except OSError as error:
        return PreviewResult(problem=f"{error.filename or 'the data'} cannot be read: {error.strerror or error}")
    except MemoryError:
        return PreviewResult(problem=f"the preview needs more than {MOST_MEMORY_BYTES >> 30} GiB of memory")
    return _shown(read)


def _beginnings(names: Sequence[Path], folder: Path, most_bytes: int) -> tuple[list[Path], float]:
    """The files, large ones cut behind a line, and which part of all bytes they hold."""
    sizes = [name.stat().st_size for name in names]
    most = most_bytes // len(names)
    paths = [
        name if size <= most else _beginning(name, folder / str(number), most)
        for number, (name, size) in enumerate(zip(names, sizes, strict=True))
    ]
    return paths, sum(path.stat().st_size for path in paths) / sum(sizes)


def _beginning(name: Path, folder: Path, most_bytes: int) -> Path:
    with name.open("rb") as file:
        data = file.read(most_bytes)
    folder.mkdir()
    path = folder / name.name
    path.write_bytes(data[: data.rfind(b"\n") + 1] or data)
    return path


def _shown(read: ReadData) -> PreviewResult:
    try:
        read.check()
        problem = ""
    except ConfigurationError as error:
        problem = _words(error)
    part = [f"Only the first {read.share:.0%} of the data was read here: the counts are of that part."]
    lines = [*(part if read.share < 1 else ()), *read.lines()]
    examples = tuple(
        PreviewExample(where, tuple((each.text, each.learnt) for each in shortened(stretches)))
        for where, stretches in read.shown
    )
    return PreviewResult(tuple(line[:MOST_LINE_CHARS] for line in lines), examples, problem)


def _words(error: ConfigurationError) -> str:
    return "\n".join(filter(None, (error.message, error.remedy)))[:MOST_LINE_CHARS]


if __name__ == "__main__":
    main(*sys.argv[1:3])
