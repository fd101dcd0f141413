"""A fault worker that speaks another version of the protocol: `python -m tests.faults.older_worker`, same options."""

import services.wire.keys

services.wire.keys.VERSION -= 1  # before anybody imports it by name

from tests.faults.worker import main  # noqa: E402

if __name__ == "__main__":
    main()
