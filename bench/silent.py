"""Sockets that never read: `python -m bench.silent`. What do they cost one web process, and does it give that back?

Many sockets of one user watch the same answers, again and again, and read nothing; they do send pongs. The bench prints
the web process's resident memory before, at its highest, and after all of them have closed; beside it the memory of the
kernel's TCP buffers on this machine, and how many sockets the server has closed by itself.
"""

import argparse
import contextlib
import json
import sys
import tempfile
import time
import uuid
from pathlib import Path
from typing import Any

from bench.load_client import Client, Fleet
from bench.system import BenchSystem, ended

MODEL = "echo"
SETTLE_S = 4.0  # for a round of watches to be served
CLOSE_WAIT_S = 5.0
RECEIVE_BYTES = 4096  # what the client's kernel takes is nobody's trouble


def tcp_mib() -> float:
    """What all TCP sockets of this machine hold in the kernel."""
    for line in Path("/proc/net/sockstat").read_text().splitlines():
        if line.startswith("TCP:"):
            return float(line.split()[-1]) * 4096 / 2**20
    return 0.0


def measure(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    with BenchSystem(folder, appendfsync="no") as system:
        worker = ("--model", MODEL, "--rate", str(options.rate), "--chunk", str(options.chunk), "--slots", "64")
        system.start_worker("tests.stand_ins.synthetic_worker", *worker)
        url = system.start_web()
        web = system.process("web")
        fleet = Fleet(url)
        asker = fleet.connect(1)[0]
        silent = fleet.connect(options.sockets, receive_bytes=RECEIVE_BYTES)
        rss = [web.memory_info().rss / 2**20]
        kernel = [tcp_mib()]
        text = ("the quick brown fox jumps over the lazy dog. " * (options.chars // 45 + 1))[: options.chars]
        answers = [
            asker.submit(uuid.uuid4().hex, MODEL, text, max_new_tokens=len(text)) for _ in range(options.answers)
        ]
        only(fleet, asker)
        fleet.run(lambda: all(answer.acked_at for answer in answers), 10)
        for client in silent:
            for answer in answers:
                client.watch(answer.rid)
        limit_s = 10 + 3 * options.chars / options.chunk / options.rate
        while not all(answer.done for answer in answers) and limit_s > 0:
            fleet.run(lambda: all(answer.done for answer in answers), 0.5)
            limit_s -= 0.5
            rss.append(web.memory_info().rss / 2**20)
            kernel.append(tcp_mib())
        for _ in range(options.again):
            for client in silent:
                with contextlib.suppress(OSError):  # the server may have closed it
                    client.pong()
                    for answer in answers:
                        client.watch(answer.rid)
            fleet.run(lambda: False, SETTLE_S)
            rss.append(web.memory_info().rss / 2**20)
            kernel.append(tcp_mib())
        closed = sum(ended(client.sock) for client in silent)
        fleet.close()
        time.sleep(CLOSE_WAIT_S)
        return {
            "sockets": options.sockets,
            "answers": options.answers,
            "before_mib": round(rss[0], 1),
            "highest_mib": round(max(rss), 1),
            "after_close_mib": round(web.memory_info().rss / 2**20, 1),
            "kernel_highest_mib": round(max(kernel) - kernel[0], 1),
            "closed_by_server": closed,
            "reader_whole": all(answer.text == text and not answer.problems for answer in answers),
        }


def only(fleet: Fleet, reader: Client) -> None:
    """From now on the fleet reads for this client alone."""
    fleet.ignore(client for client in fleet.clients if client is not reader)


def main() -> None:
    parser = argparse.ArgumentParser("python -m bench.silent", description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--sockets", type=int, default=300)
    parser.add_argument("--answers", type=int, default=8, help="each socket watches them all")
    parser.add_argument("--chars", type=int, default=20_000, help="of each answer")
    parser.add_argument("--again", type=int, default=20, help="how often each socket watches each answer once more")
    parser.add_argument("--rate", type=float, default=200)
    parser.add_argument("--chunk", type=int, default=16)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(measure(options, Path(folder))))
    sys.stdout.flush()


if __name__ == "__main__":
    main()
