"""Runs a module as a process whose wall clock is wrong: `python -m tests.faults.skewed -3600 tests.faults.worker …`.

Only `time.time` is off; clocks that measure intervals are not, as on a real machine with a bad date.
"""

import runpy
import sys
import time


def main() -> None:
    offset_s, module = float(sys.argv[1]), sys.argv[2]
    right = time.time
    time.time = lambda: right() + offset_s
    sys.argv = sys.argv[2:]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
