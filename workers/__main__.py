"""A worker: `python -m workers`, or `chatserver worker`. Settings come from the environment.

`python -m workers --check` is its health probe: exit code 0 when a worker of this machine announces itself and its
engine answers.
"""

import logging
import signal
import socket
import sys
import threading

from services.catalogue import resolve
from services.connection import connect, wait_for_redis
from services.program import run
from services.protocol import Keys, check_name
from services.registry import Registry
from services.settings import Settings
from services.tokenization import load_tokenizer
from workers.engine_process import EngineProcess
from workers.planner import ChatPlanner
from workers.select_engine import choose_engine
from workers.watchdog import SupervisedEngine
from workers.worker import Worker

log = logging.getLogger("chatserver.worker")


def serve(settings: Settings) -> None:
    """Load the model, serve it until SIGTERM or SIGINT, drain."""
    source = resolve(settings.model)
    model = check_name(settings.served_name or source.name, "served_name")
    tokenizer = load_tokenizer(source, template=settings.chat_template)
    log.info(tokenizer.template_reason)
    name, reason = choose_engine(source, settings.engine)
    log.info("Engine %s: %s.", name, reason)
    options = {
        "engine": name,
        "slots": settings.slots,
        "context_tokens": settings.context_tokens,
        "cache_gib": settings.cache_gib,
        "state_dir": settings.state_dir,
        "dtype": settings.dtype,
    }
    engine = SupervisedEngine(lambda: EngineProcess(source, **options), stall_s=settings.stall_s)
    engine.start()
    log.info(engine.description)
    redis = connect(settings.redis_url, role="worker")
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    try:
        if wait_for_redis(redis, log.warning, stopping):
            worker = Worker.from_settings(settings, redis, model, engine, ChatPlanner(tokenizer, engine))
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, lambda *_: worker.stop())
            if stopping.is_set():
                return
            log.info("serving %s as %s with %d slots", settings.model, model, engine.limits.max_running)
            worker.run()
    finally:
        engine.stop()
        redis.close()


def check(settings: Settings) -> str:
    """Empty when a worker of this machine is present, else what is wrong."""
    redis = connect(settings.redis_url, role="command")
    here = [w for w in Registry(redis, Keys(settings.namespace)).workers() if w.host == socket.gethostname()]
    return "" if here else f"no worker on {socket.gethostname()} has announced itself in the last seconds"


if __name__ == "__main__":
    sys.exit(run("worker", serve, check))
