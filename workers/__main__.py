"""A worker: `python -m workers`, or `chatserver worker`. Settings come from the environment.

`python -m workers --standby` waits until a trained model is wanted and serves that, `--standby NAME` only the one of
that name. `python -m workers --check` is the health probe: exit code 0 when a worker of this machine announces itself
and its engine answers.
"""

import contextlib
import logging
import socket
import sys

from services.connection.connect import connect, wait_for_redis
from services.errors import ConfigurationError
from services.program import await_redis, run
from services.serving.registry import Registry
from services.serving.trained_models import TrainedModels, find_model
from services.settings import Settings
from services.wire.keys import Keys, check_name
from workers.serving import Stop, load, loading, serve_until
from workers.standby import Standby

log = logging.getLogger("chatserver.worker")


def serve(settings: Settings) -> None:
    """Load the model, serve it until SIGTERM or SIGINT, drain."""
    with contextlib.closing(connect(settings.redis_url, role="worker")) as redis:
        await_redis(redis, log.warning)  # first: what is wrong with it shall be known before a model is loaded
        source = find_model(settings.model, TrainedModels(redis, Keys(settings.namespace)).find)
        model = check_name(settings.served_name or source.name, "served_name")
        with loading(Registry(redis, Keys(settings.namespace)), model):
            loaded = load(settings, source)
        stop = Stop()
        with stop.on_signals():
            serve_until(stop, settings, redis, model, loaded)
        if loaded.gone.asked.is_set():  # whoever started this worker starts it again
            raise ConfigurationError(f"the file that {model} was served from is gone; start the worker again")


def stand_by(settings: Settings) -> None:
    """Serve wanted models, one after the other, until SIGTERM or SIGINT."""
    stop = Stop()
    with stop.on_signals(), contextlib.closing(connect(settings.redis_url, role="worker")) as redis:
        if wait_for_redis(redis, log.warning, stop.asked):
            Standby(settings, redis, load, stop, only="".join(sys.argv[2:3])).run()


def check(settings: Settings) -> str:
    """Empty when a worker of this machine is present, else what is wrong."""
    redis = connect(settings.redis_url, role="command")
    here = [w for w in Registry(redis, Keys(settings.namespace)).workers() if w.host == socket.gethostname()]
    return "" if here else f"no worker on {socket.gethostname()} has announced itself in the last seconds"


if __name__ == "__main__":
    sys.exit(run("worker", stand_by if sys.argv[1:2] == ["--standby"] else serve, check))
