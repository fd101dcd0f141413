"""torchrun whose exit code is the training program's own: `python -m pipelines.training.torchrun OPTIONS -m MODULE …`.

Plain torchrun ends with 1 whatever the exit codes of its processes. So nobody could tell a run that stopped and saved
everything (33: start it again) from a run that must not be repeated. infra/sky/train.sh starts it.
"""

import sys

from services.jobs.training import STOPPED_EXIT

SHUTDOWN_S = 1800  # a process that was told to end may still be writing a large checkpoint


def main(arguments: list[str]) -> int:
    """Run torchrun with these arguments; returns the exit code of the process that ended the run."""
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import main as torchrun

    try:
        torchrun(["--shutdown-timeout", str(SHUTDOWN_S), *arguments])
    except SignalException:  # its processes got the signal too, saved, and are gone
        return STOPPED_EXIT
    except ChildFailedError as error:  # what failed first; the others may only have noticed that it was gone
        code = int(error.get_first_failure()[1].exitcode)
        return code if code >= 0 else 128 - code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
