"""A client of a Redis Cluster: it sends each command to the node that owns the key's slot. `connect.py` makes it.

To its callers it is a `redis.Redis`. It does the routing itself because redis-py's RedisCluster repeats the commands of
a pipeline after a lost connection, however few retries it is allowed; connects when it is made; and raises errors that
are not a RedisError. This client never repeats a command whose reply was lost: the caller gets the error, and the
*next* command asks the cluster anew which node owns which slot. MOVED and ASK mean that the node did not execute the
command: those replies the client follows.
"""

import random
import threading
from collections.abc import Callable, Sequence
from typing import Any, Literal

import redis
from redis.crc import key_slot
from redis.exceptions import AskError, ClusterDownError, MovedError, RedisError, ResponseError

from services.errors import ConfigurationError

Address = tuple[str, int]

MAX_REDIRECTS = 5
UNANSWERED = (redis.ConnectionError, redis.TimeoutError)
AWAY = (*UNANSWERED, ClusterDownError)  # the node, or its sight of the others: ask the others


def owner_of(client: redis.Redis, key: str) -> redis.Redis:
    """The client of the server that holds this key or sharded channel. Raises redis errors when no node does."""
    return client.owner_of(key) if isinstance(client, Cluster) else client


def primaries_of(client: redis.Redis) -> list[redis.Redis]:
    """A client for each server that takes writes. For one server, or behind Sentinel, that is the client itself."""
    return client.primaries() if isinstance(client, Cluster) else [client]


def key_of(command: Sequence[Any]) -> Any:
    """The first key of a command; None when any node may serve it."""
    name = command[0]
    if len(command) == 1 or name in ("PUBLISH", "INFO"):
        return None
    if name in ("EVALSHA", "EVAL"):
        return command[3]
    return command[1]


class Cluster(redis.Redis):  # type: ignore[misc]  # redis-py is untyped
    """Thread-safe; it connects at the first command. `make_node` makes the client of one node."""

    def __init__(self, seeds: Sequence[Address], make_node: Callable[[Address], redis.Redis]) -> None:
        self.seeds = tuple(seeds)
        self._make_node = make_node
        self._nodes: dict[Address, redis.Redis] = {}
        self._known: set[Address] = set()  # primaries and replicas: whom to ask
        self._slots: dict[int, Address] = {}
        self._failed: Address | None = None  # asked last
        self._stale = True
        self._refreshing = threading.Lock()
        super().__init__(connection_pool=self._node(self.seeds[0]).connection_pool)

    # -- who owns what -------------------------------------------------------------------------------------------

    def owner_of(self, key: str | bytes) -> redis.Redis:
        """The client of the node that owns this key. Raises ClusterDownError when none does."""
        self._refresh()
        slot = key_slot(key.encode() if isinstance(key, str) else key)
        if slot not in self._slots:
            self._stale = True
            raise ClusterDownError(f"no node serves slot {slot}")
        return self._node(self._slots[slot])

    def primaries(self) -> list[redis.Redis]:
        """The clients of the nodes that own slots."""
        self._refresh()
        return [self._node(address) for address in sorted(set(self._slots.values()))]

    def doubt(self, node: redis.Redis | None = None) -> None:
        """Note that the topology may have changed. The next command asks for it, and asks the failed `node` last."""
        self._stale = True
        if node is not None:
            self._failed = _address(node)

    def _node(self, address: Address) -> redis.Redis:
        node = self._nodes.get(address)
        return node if node is not None else self._nodes.setdefault(address, self._make_node(address))

    def _any(self) -> redis.Redis:
        """A node for commands without a key. It is found without a command, so this never fails."""
        addresses = list(set(self._slots.values())) or list(self.seeds)
        return self._node(random.choice([a for a in addresses if a != self._failed] or addresses))

    def _refresh(self) -> None:
        """Ask which node owns which slot, if that is in doubt. Raises the last node's error when none answers."""
        if not self._stale:
            return
        with self._refreshing:
            if not self._stale:
                return
            self._stale = False  # before asking: a doubt that comes meanwhile stays
            try:
                self._adopt(*self._ask_topology())
            except BaseException:
                self._stale = True
                raise

    def _ask_topology(self) -> tuple[Address, list[Any]]:
        addresses = list(self._known | set(self.seeds))
        random.shuffle(addresses)
        failure: Exception = ClusterDownError("no node is known")
        for address in sorted(addresses, key=lambda address: address == self._failed):
            try:
                rows = self._node(address).execute_command("CLUSTER SLOTS")
            except UNANSWERED as error:
                failure = error
            except ResponseError as error:
                if "cluster support disabled" in str(error):
                    raise ConfigurationError(
                        f"REDIS_URL names a cluster, but {address[0]}:{address[1]} is a single server; use redis://"
                    ) from None
                raise
            else:
                if rows:
                    return address, rows
                failure = ClusterDownError(f"{address[0]}:{address[1]} knows no slots")
        raise failure

    def _adopt(self, asked: Address, rows: list[Any]) -> None:
        slots: dict[int, Address] = {}
        known: set[Address] = set()
        for first, last, *nodes in rows:
            # A node that does not know its own name leaves it out: it is where we asked.
            addresses = [((node[0] or b"").decode() or asked[0], int(node[1])) for node in nodes]
            known.update(addresses)
            slots.update(dict.fromkeys(range(first, last + 1), addresses[0]))
        self._slots, self._known = slots, known
        kept = known | set(self.seeds)
        self._nodes = {address: node for address, node in self._nodes.items() if address in kept}

    # -- commands ------------------------------------------------------------------------------------------------

    def execute_command(self, *args: Any, **options: Any) -> Any:
        """Send one command to the node of its key. Repeat it only if the server says that it was not executed."""
        if args[0] == "SCRIPT LOAD":
            return self._load_script(args)
        key = key_of(args)
        return self.send(self._any() if key is None else self.owner_of(key), args, options)

    def send(self, node: redis.Redis, command: Sequence[Any], options: dict[str, Any]) -> Any:
        """Execute a command on a node, or on the node that it redirects to."""
        for redirects in range(MAX_REDIRECTS + 1):
            try:
                return node.execute_command(*command, **options)
            except MovedError as error:
                if redirects == MAX_REDIRECTS:
                    raise
                node = self.moved(error, node)
            except AskError as error:
                return self._ask(error, node, command, options)
            except AWAY:
                self.doubt(node)
                raise
        raise AssertionError

    def redirect(self, error: AskError, node: redis.Redis, command: Sequence[Any]) -> Any:
        """The reply to a pipeline's command that `node` sent elsewhere; errors are returned."""
        try:
            if isinstance(error, MovedError):
                return self.send(self.moved(error, node), command, {})
            return self._ask(error, node, command, {})
        except RedisError as failure:
            return failure

    def moved(self, error: MovedError, node: redis.Redis) -> redis.Redis:
        """The node that owns the slot now; the rest of the topology is in doubt."""
        address = self._slots[error.slot_id] = _target(error, node)
        self.doubt()
        return self._node(address)

    def _ask(self, error: AskError, node: redis.Redis, command: Sequence[Any], options: dict[str, Any]) -> Any:
        """Execute one command on the node to which the slot is moving."""
        pipe = self._node(_target(error, node)).pipeline(transaction=False)
        pipe.execute_command("ASKING")
        pipe.execute_command(*command, **options)
        reply = pipe.execute(raise_on_error=False)[1]
        if isinstance(reply, Exception):
            raise reply
        return reply

    def _load_script(self, command: Sequence[Any]) -> Any:
        """Load the script on every primary that answers. Another will say later that it lacks the script."""
        reply, failure = None, None
        for node in self.primaries():
            try:
                reply = self.send(node, command, {})
            except UNANSWERED as error:
                failure = error
        if reply is None and failure is not None:
            raise failure
        return reply

    def ping(self, **_: Any) -> bool:
        """Whether every primary answers. Raises the error of one that does not."""
        for node in self.primaries():
            self.send(node, ("PING",), {})
        return True

    def pipeline(self, transaction: bool = True, shard_hint: Any = None) -> Any:
        """A pipeline without a transaction: only that kind may span nodes."""
        assert not transaction, "a transaction cannot span the nodes of a cluster"
        return ClusterPipeline(self)

    def pubsub(self, **options: Any) -> Any:
        """A subscription at any node: for plain channels, which a cluster broadcasts."""
        return self._any().pubsub(**options)

    def close(self) -> None:
        for node in list(self._nodes.values()):
            node.close()


class ClusterPipeline:
    """Commands for many keys: one round trip to each node that owns some of them, one node after the other."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._commands: list[tuple[Any, ...]] = []

    def execute_command(self, *command: Any) -> None:
        self._commands.append(command)

    def execute(self, raise_on_error: Literal[False]) -> list[Any]:
        """The replies in order. Where a node does not answer, the reply to each of its commands is the error."""
        replies: list[Any] = [None] * len(self._commands)
        shares: dict[redis.Redis, list[int]] = {}
        for index, command in enumerate(self._commands):
            try:
                shares.setdefault(self._cluster.owner_of(key_of(command)), []).append(index)
            except RedisError as error:
                replies[index] = error
        for node, indexes in shares.items():
            for index, reply in zip(indexes, self._share(node, indexes), strict=True):
                replies[index] = reply
        self._commands = []
        return replies

    def _share(self, node: redis.Redis, indexes: list[int]) -> list[Any]:
        commands = [self._commands[index] for index in indexes]
        pipe = node.pipeline(transaction=False)
        for command in commands:
            pipe.execute_command(*command)
        try:
            replies = pipe.execute(raise_on_error=False)
        except UNANSWERED as error:
            self._cluster.doubt(node)
            return [error] * len(commands)
        if any(isinstance(reply, ClusterDownError) for reply in replies):
            self._cluster.doubt(node)
        return [
            self._cluster.redirect(reply, node, command) if isinstance(reply, AskError) else reply
            for command, reply in zip(commands, replies, strict=True)
        ]


def _address(node: redis.Redis) -> Address:
    options = node.connection_pool.connection_kwargs
    return options["host"], options["port"]


def _target(error: AskError, node: redis.Redis) -> Address:
    """The address in a redirection. Without a host it is another port of the node that redirects."""
    return error.host or _address(node)[0], error.port
