"""A worker that waits for a wanted model: `chatserver worker --standby`.

It takes a wanted trained model that no worker serves or loads (`services/serving/trained_models.py`) and serves it.
When the model is no longer wanted, it drains and waits again. Of several standby workers one gets the claim on a model.
A claim expires when its holder dies; a worker that has lost its claim stops serving. When it cannot load a model, it
leaves the model to other workers for a while, and writes the reason for people.
"""

import contextlib
import logging
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator

from redis import Redis
from redis.exceptions import RedisError

from services.errors import ChatServerError, ConfigurationError
from services.models.catalogue import ModelSource
from services.serving.trained_models import CLAIM_TTL_S, Claim, TrainedModel, TrainedModels
from services.settings import Settings
from services.wire.keys import Keys
from workers.serving import LoadedModel, Stop, serve_until

log = logging.getLogger("chatserver.worker")

LOOK_S = 0.5
KEEP_S = CLAIM_TTL_S / 10
REST_S = 30.0  # before a model that failed here is tried again

Load = Callable[[Settings, ModelSource], LoadedModel]


class Standby:
    """Waits and serves, one model at a time. `only`: stands by for this model and no other."""

    def __init__(self, settings: Settings, redis: Redis, load: Load, stop: Stop, *, only: str = "") -> None:
        self._settings = settings
        self._redis = redis
        self._load = load
        self._stop = stop
        self._only = only
        self._trained = TrainedModels(redis, Keys(settings.namespace))
        self._token = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}"
        self._rests: dict[str, float] = {}  # model → when it may be tried again
        self._complaint = ""

    def run(self) -> None:
        """Until asked to stop."""
        log.info("standing by for %s", self._only or "what is wanted: `chatserver models serve NAME`")
        while not self._stop.asked.is_set():
            try:
                found = self._take()
            except RedisError as error:
                self._complain_once(f"cannot look for wanted models: {error}")
                found = None
            if found is None:
                self._stop.asked.wait(LOOK_S)
            else:
                self._serve(*found)

    def _take(self) -> tuple[TrainedModel, ModelSource] | None:
        """A model that this worker can load, and has the claim on."""
        for model in self._trained.unserved():
            if self._only in ("", model.name) and time.monotonic() >= self._rests.get(model.name, 0.0):
                try:
                    source = model.source()
                except ConfigurationError as error:
                    self._failed(model.name, error)
                    continue
                if self._trained.keep_claim(Claim(model.name, self._token)):
                    return model, source
        return None

    def _serve(self, model: TrainedModel, source: ModelSource) -> None:
        stop = Stop()
        self._stop.pass_on(stop)
        log.info("loading %s from %s", model.name, source.path)
        with self._claimed(Claim(model.name, self._token), stop):
            try:
                loaded = self._load(self._settings, source)
            except ChatServerError as error:
                self._failed(model.name, error)
                return
            self._complaint = ""
            serve_until(stop, self._settings, self._redis, model.name, loaded)
        log.info("%s is served here no longer", model.name)

    @contextlib.contextmanager
    def _claimed(self, claim: Claim, stop: Stop) -> Iterator[None]:
        """Renews the claim while it serves the model. Stops when the claim is lost or the model is not wanted."""
        ended = threading.Event()
        keeper = threading.Thread(target=self._keep, args=(claim, stop, ended), name="claim", daemon=True)
        keeper.start()
        try:
            yield
        finally:
            ended.set()
            keeper.join()
            with contextlib.suppress(RedisError):  # then it runs out
                self._trained.release(claim)

    def _keep(self, claim: Claim, stop: Stop, ended: threading.Event) -> None:
        while not ended.wait(KEEP_S):
            try:
                if not self._trained.keep_claim(claim):
                    log.warning("another worker has taken over model %s", claim.name)
                    stop.stop()
                elif not self._trained.is_wanted(claim.name):
                    stop.stop()
            except RedisError as error:
                log.debug("claim not renewed: %s", error)

    def _failed(self, name: str, error: ChatServerError) -> None:
        self._rests[name] = time.monotonic() + REST_S
        self._complain_once(f"cannot serve {name}: {error}")
        with contextlib.suppress(RedisError):
            self._trained.complain(name, str(error))

    def _complain_once(self, complaint: str) -> None:
        if complaint != self._complaint:
            self._complaint = complaint
            log.warning("%s", complaint)
