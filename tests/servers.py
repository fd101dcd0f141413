"""Redis servers as tests need them: bare nodes, a cluster of three primaries, a primary with a replica and sentinels.

All on loopback and on free ports. Each ends with its context, and with the test process, however that ends.
"""

import contextlib
import functools
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import redis

from services.connection.embedded import free_port
from services.machine.processes import end_tied, start_tied

STOP_TIMEOUT_S = 5.0
READY_TIMEOUT_S = 20.0
NODE_TIMEOUT_MS = 1500  # after which the nodes of a cluster replace one that is silent
NUM_SLOTS = 16_384


class Node:
    """One server process in a folder of its own. `options` are those of its command line, without the dashes."""

    def __init__(self, binary: Path, folder: Path, *arguments: str, **options: str | int) -> None:
        self.port = free_port()
        self.folder = folder / str(self.port)
        self.folder.mkdir(parents=True)
        self.log_path = self.folder / "log"
        pairs = {"port": self.port, "bind": "127.0.0.1", "dir": self.folder, **options}
        command = [str(binary), *arguments]
        for name, value in pairs.items():
            command += [f"--{name.replace('_', '-')}", *str(value).split()]
        self._command = command
        self.client = redis.Redis(port=self.port, protocol=2)
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        with self.log_path.open("ab") as log:
            self._process = start_tied(self._command, output=log)
        until(self._answers, f"{' '.join(self._command)}: {self.log_path.read_text()[-500:]}")

    def _answers(self) -> bool:
        try:
            return bool(self.client.ping())
        except redis.ConnectionError:
            return False

    def send(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def end(self, how: signal.Signals = signal.SIGKILL) -> None:
        """Idempotent."""
        process, self._process = self._process, None
        if process is not None:
            end_tied(process, how, STOP_TIMEOUT_S)
        self.client.close()


def until(condition: Callable[[], object], what: str) -> None:
    """Wait for a predicate with a deadline."""
    deadline = time.monotonic() + READY_TIMEOUT_S
    while not condition():
        assert time.monotonic() < deadline, f"not ready: {what}"
        time.sleep(0.01)


class ClusterOfServers:
    """Three primaries that share the slots, each with as many replicas as asked for."""

    def __init__(self, binary: Path, folder: Path, *, replicas: int = 0) -> None:
        start = functools.partial(
            Node,
            binary,
            folder,
            cluster_enabled="yes",
            cluster_config_file="nodes.conf",
            cluster_node_timeout=NODE_TIMEOUT_MS,
            repl_diskless_sync_delay=0,
            save="",
        )
        self.nodes: list[Node] = []
        try:
            for _ in range(3 * (1 + replicas)):
                self.nodes.append(start(cluster_port=free_port()))
            self.primaries = self.nodes[:3]
            self._join()
        except BaseException:
            self.stop()
            raise

    @property
    def url(self) -> str:
        return "redis+cluster://" + ",".join(f"127.0.0.1:{node.port}" for node in self.primaries)

    def _join(self) -> None:
        share = NUM_SLOTS // 3
        for number, node in enumerate(self.primaries):
            last = NUM_SLOTS - 1 if number == 2 else (number + 1) * share - 1
            node.client.execute_command("CLUSTER ADDSLOTSRANGE", number * share, last)
            node.client.execute_command("CLUSTER SET-CONFIG-EPOCH", number + 1)
        first = self.nodes[0].client
        for node in self.nodes[1:]:
            bus = node.client.config_get("cluster-port")["cluster-port"]
            first.execute_command("CLUSTER MEET", "127.0.0.1", node.port, bus)
        until(lambda: all(self._complete(node) for node in self.nodes), "the cluster")
        for number, replica in enumerate(self.nodes[3:]):
            replica.client.execute_command("CLUSTER REPLICATE", self.id_of(self.primaries[number % 3]))
        until(lambda: all(self._linked(replica) for replica in self.nodes[3:]), "the replicas")

    def _complete(self, node: Node) -> bool:
        info = node.client.execute_command("CLUSTER INFO")
        return info["cluster_state"] == "ok" and int(info["cluster_known_nodes"]) == len(self.nodes)

    @staticmethod
    def _linked(replica: Node) -> bool:
        return replica.client.info("replication").get("master_link_status") == "up"

    def id_of(self, node: Node) -> str:
        return str(node.client.execute_command("CLUSTER MYID").decode())

    def owner(self, key: str) -> Node:
        """The primary that holds a key."""
        slot = self.nodes[0].client.execute_command("CLUSTER KEYSLOT", key)
        share = NUM_SLOTS // 3
        return self.primaries[min(slot // share, 2)]

    def move_slot(self, key: str, source: Node, target: Node) -> None:
        """Give the slot of a key to another primary, with what is in it."""
        slot = target.client.execute_command("CLUSTER KEYSLOT", key)
        target.client.execute_command("CLUSTER SETSLOT", slot, "IMPORTING", self.id_of(source))
        source.client.execute_command("CLUSTER SETSLOT", slot, "MIGRATING", self.id_of(target))
        for name in source.client.execute_command("CLUSTER GETKEYSINSLOT", slot, 1000):
            source.client.execute_command("MIGRATE", "127.0.0.1", target.port, name, 0, 5000)
        for node in (target, source, *(node for node in self.primaries if node not in (source, target))):
            node.client.execute_command("CLUSTER SETSLOT", slot, "NODE", self.id_of(target))

    def stop(self) -> None:
        for node in self.nodes:
            node.end()


@contextlib.contextmanager
def sentinels(binary: Path, folder: Path, *, number: int = 3) -> Iterator[tuple[str, Node, Node]]:
    """A primary, its replica and the sentinels that watch them: their URL, the primary and the replica."""
    nodes: list[Node] = []
    try:
        for _ in range(2):
            nodes.append(Node(binary, folder, save="", repl_diskless_sync_delay=0))
        primary, replica = nodes
        replica.client.execute_command("REPLICAOF", "127.0.0.1", primary.port)
        until(lambda: replica.client.info("replication")["master_link_status"] == "up", "the replica")
        watchers = [_sentinel(binary, folder, primary, number // 2 + 1) for _ in range(number)]
        nodes += watchers
        until(lambda: all(_knows(watcher, number - 1) for watcher in watchers), "the sentinels")
        hosts = ",".join(f"127.0.0.1:{watcher.port}" for watcher in watchers)
        yield f"redis+sentinel://{hosts}/chat", primary, replica
    finally:
        for node in nodes:
            node.end()


def _sentinel(binary: Path, folder: Path, primary: Node, quorum: int) -> Node:
    config = folder / f"sentinel-{free_port()}.conf"
    config.write_text(
        f"sentinel monitor chat 127.0.0.1 {primary.port} {quorum}\n"
        "sentinel down-after-milliseconds chat 1000\n"
        "sentinel failover-timeout chat 4000\n"
    )
    return Node(binary, folder, str(config), "--sentinel")


def _knows(watcher: Node, num_others: int) -> bool:
    state = watcher.client.sentinel_masters().get("chat")
    return bool(state and state["num-other-sentinels"] == num_others and state["num-slaves"] == 1)
