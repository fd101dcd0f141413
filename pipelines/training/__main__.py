"""The training program, run alone or by a launcher in several processes:

    python -m pipelines.training --config FILE --data FILE [--data FILE …] --out DIR
    python -m pipelines.training.torchrun --nproc-per-node 8 -m pipelines.training --config FILE --data FILE --out DIR

Exit codes: 0 finished (also if what it makes was there before); 33 SIGTERM stopped the program, which saved everything:
start it again to continue; 2 the configuration or the data is wrong; 3 aborted, since the model would be broken. Our
`torchrun` passes these codes on; the original one ends with 1 instead of any code but 0.
"""

import argparse
import signal
import sys
from pathlib import Path

from pipelines.training.exporting import export_result
from pipelines.training.identity import Identity, base_digest, digests_of
from pipelines.training.manifest import check_same_run, finished_manifest
from pipelines.training.reporting import Aborted, BadData, Reporter, Stopped
from pipelines.training.train import Training, tell_finished
from services.errors import ConfigurationError
from services.jobs.training import ABORTED_EXIT, REFUSED_EXIT, STOPPED_EXIT, TrainingConfig, read_training
from services.machine.signals import hearing
from services.models.catalogue import resolve


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m pipelines.training", description="Fine-tune a model.")
    parser.add_argument("--config", required=True, help="YAML file of a training configuration, or a preset's name")
    parser.add_argument("--data", required=True, action="append", type=Path, help="JSONL that cleaning wrote")
    parser.add_argument("--out", required=True, type=Path, help="folder of checkpoints and model; may be mounted")
    parser.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE", help="instead of the file's")
    return parser.parse_args()


def run(given: argparse.Namespace, report: Reporter) -> None:
    overrides = dict(pair.partition("=")[::2] for pair in given.set)
    config = read_training(given.config, overrides)
    for path in given.data:
        if not path.is_file():
            raise ConfigurationError(f"--data {path}: there is no such file")
    data, folder = digests_of(given.data), given.out / config.results[-1]
    if manifest := finished_manifest(folder):
        check_same_run(manifest, Identity.of(config, list(data.values()), _base_digest(config)), folder)
        report.say("This training is finished already.")
        if report.speaks:
            heard: list[int] = []
            with hearing((signal.SIGTERM,), heard.append):
                export_result(folder, config, report, stopped=lambda: bool(heard))
        tell_finished(folder, report)
    else:
        Training(config, data, given.out.resolve(), report).run()


def _base_digest(config: TrainingConfig) -> str:
    """Empty for a base that is gone by now: its model is whole without it."""
    try:
        return base_digest(resolve(config.model))
    except ConfigurationError:
        return ""


def main() -> int:
    report = Reporter.of_this_process()
    try:
        run(arguments(), report)
    except BadData as error:
        return failed(report, REFUSED_EXIT, str(error), error.file)
    except ConfigurationError as error:
        return failed(report, REFUSED_EXIT, str(error))
    except Aborted as error:
        return failed(report, ABORTED_EXIT, str(error), error.file)
    except Stopped as stopped:
        report.say(str(stopped))
        return STOPPED_EXIT
    return 0


def failed(report: Reporter, code: int, message: str, file: str = "") -> int:
    """`file`: the name of the data file at fault."""
    report.say(f"Not trained: {message}")
    report.event("failed", code=code, message=message, file=file)
    return code


if __name__ == "__main__":
    sys.exit(main())
