"""A standby worker over an engine that repeats the last message. For tests only.

    python -m tests.workers.standby_process [NAME]

It reads what it is to load as the real one does. While a file `slow` lies in a model's folder, loading goes on; a file
`broken` makes it fail with its text.
"""

import contextlib
import sys
import time

from services.connection.connect import connect
from services.errors import ConfigurationError
from services.logs import configure_logging
from services.models.catalogue import ModelSource
from services.settings import Settings, load_settings
from tests.stand_ins.synthetic_worker import EchoEngine, plan
from workers.serving import LoadedModel, Stop
from workers.standby import Standby


def load(settings: Settings, source: ModelSource) -> LoadedModel:
    assert source.path is not None
    print("loading", source.name, flush=True)
    while (source.path / "slow").exists():
        time.sleep(0.02)
    if (source.path / "broken").exists():
        raise ConfigurationError((source.path / "broken").read_text())
    engine = EchoEngine(rate=20, chunk=4, slots=settings.slots)
    engine.start()
    return LoadedModel(engine, plan)


def main() -> None:
    settings = load_settings()
    configure_logging(settings.log_format, settings.log_level, process="worker")
    stop = Stop()
    with stop.on_signals(), contextlib.closing(connect(settings.redis_url, role="worker")) as redis:
        Standby(settings, redis, load, stop, only="".join(sys.argv[1:])).run()


if __name__ == "__main__":
    main()
