"""The workers that `chatserver up` adds to its own: one for each wanted trained model that no worker serves.

`services/command/run/machine.py` calls it. Each worker stands by for its model (`workers/standby.py`). If two machines
start such a worker, one gets the claim and loads the model; the other sees the claim and ends its worker.
"""

import socket
import time
from collections.abc import Callable, Sequence

from services.command.run.children import Child
from services.serving.trained_models import TrainedModels

LOOK_S = 1.0


class ExtraWorkers:
    """`make_child(model, number)` makes the process that stands by for a model. At most `most` run at once."""

    def __init__(
        self, trained: TrainedModels, most: int, make_child: Callable[[str, int], Child], say: Callable[[str], None]
    ) -> None:
        self._trained = trained
        self._most = most
        self._make_child = make_child
        self._say = say
        self._children: dict[str, Child] = {}  # by model
        self._ending: list[Child] = []
        self._ours: set[str] = set()  # how the claims of our children begin
        self._looked_at = 0.0
        self._num_started = 0

    @property
    def children(self) -> Sequence[Child]:
        return [*self._children.values(), *self._ending]

    def tend(self) -> None:
        """Start and end workers as needed; call it often. Raises RedisError: then the running workers go on."""
        for child in self._ending:
            if child.gone():
                child.finish()
        self._ending = [child for child in self._ending if child.pid]
        for child in self._children.values():
            child.tend()
            self._ours.add(f"{socket.gethostname()}-{child.pid}-")
        now = time.monotonic()
        if now - self._looked_at >= LOOK_S:
            self._looked_at = now
            self._dismiss()
            self._engage()

    def _dismiss(self) -> None:
        """End the workers whose model is no longer wanted, or has another worker."""
        for name, child in list(self._children.items()):
            holder = self._trained.loader(name)
            others = bool(holder) and not holder.startswith(tuple(self._ours))
            if others or not self._trained.is_wanted(name):
                self._say(
                    f"{name} {'is served by another worker' if others else 'is wanted no longer'}: {child.name} ends"
                )
                child.terminate()
                self._ending.append(self._children.pop(name))

    def _engage(self) -> None:
        for model in self._trained.unserved():
            if model.name not in self._children and len(self.children) < self._most:
                self._num_started += 1
                child = self._make_child(model.name, self._num_started)
                self._say(f"{model.name} is wanted: {child.name} starts and loads it")
                self._children[model.name] = child
