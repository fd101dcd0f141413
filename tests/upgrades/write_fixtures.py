"""Writes the fixtures of this folder with the build of a commit, in about two minutes:

    .venv/bin/python -m tests.upgrades.write_fixtures c33470a tests/upgrades/build_2026_11_29

It checks that commit out, starts its `chatserver up` over a fresh state folder, has it answer, clean and train, and
then stops all of its processes in one moment, as a power failure does. It drives the build by its command, its routes
and its socket events, and reads Redis by the keys of docs/protocol.md; it imports nothing of any build. The libraries
are those of the environment that runs it, so take one in which that build's tests pass.

The name of the machine stands in what is written; `unshare --uts sh -c 'hostname old-build; exec …'` gives it
another one.
"""

import argparse
import contextlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import time
import tomllib
from collections.abc import Callable, Iterator
from http.cookiejar import CookieJar
from pathlib import Path
from typing import Any
from urllib.request import HTTPCookieProcessor, build_opener

import psutil
import redis
import requests
import socketio

ROOT = Path("/tmp/chatserver-old-build")  # stands in what is written
STATE = ROOT / "state"
LEFT_OUT = ("build", "venv", "build.log", "state/redis/redis.log", "state/redis/lock")
RECIPE = """\
name: {name}
steps:
  - roles: {{same_role: merge, min_chars: 4}}
  - repair_unicode
  - deduplicate
  - split_validation: {{fraction: 0.1}}
shard_mib: {shard_mib}
"""
TRAINING = """\
name: {name}
model: {model}
seq_len: 64
tokens_per_step: 128
per_device_tokens: 128
max_steps: {steps}
learning_rate: 0.01
save_steps: 1
keep_checkpoints: 1
gradient_checkpointing: false
"""
QUESTIONS = {
    "old-finished": "Is an answer that was whole before the upgrade whole after it? Ä, 漢字 and 🙂 count as one each.",
    "old-cancelled": "This answer is stopped in its middle. " * 12,
    "old-failed": "This question is longer than the model's context. " * 12,
    "old-halfway": "The worker of this answer dies while it speaks, with 🙂 and é. " * 8,
    "old-queued": "Nobody has begun this one.",
    "old-queued-batch": "This one lets others go first.",
    "old-queued-other": "Somebody else asks this.",
}


def wait_until(condition: Callable[[], Any], what: str, timeout_s: float = 120.0) -> Any:
    """The first true value of `condition`."""
    deadline = time.monotonic() + timeout_s
    while not (value := condition()):
        if time.monotonic() > deadline:
            sys.exit(f"{what} did not happen within {timeout_s:g} s; {ROOT} shows how far it came")
        time.sleep(0.001)
    return value


class Build:
    """A checkout of the commit, and the processes that were started from it."""

    def __init__(self, ref: str) -> None:
        self.folder = ROOT / "build"
        subprocess.run(["git", "worktree", "add", "--force", "--detach", self.folder, ref], check=True)
        (ROOT / "venv").symlink_to(sys.prefix)
        module, function = self._entry().split(":")
        self._main = f"import sys; from {module} import {function}; sys.exit({function}())"
        ours = {name: value for name, value in os.environ.items() if not name.startswith(("CHATSERVER_", "REDIS_URL"))}
        self.environment = {
            **ours,
            "PYTHONPATH": str(self.folder),
            "CHATSERVER_STATE_DIR": str(STATE),
            "CHATSERVER_EXTRA_WORKERS": "0",
            "CHATSERVER_CLEAN_PROCESSES": "1",
            "HF_HUB_OFFLINE": "1",
            "OMP_NUM_THREADS": "1",
            "LOGNAME": "operator",
        }

    def _entry(self) -> str:
        return str(tomllib.loads((self.folder / "pyproject.toml").read_text())["project"]["scripts"]["chatserver"])

    def start(self, *arguments: str, log: Path, **environment: str) -> subprocess.Popen[bytes]:
        with log.open("ab") as output:
            return subprocess.Popen(
                [str(ROOT / "venv/bin/python"), *arguments],
                cwd=self.folder,
                env={**self.environment, **environment},
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    def chatserver(self, *arguments: str, **environment: str) -> tuple[int, str]:
        """The command, to its end: its exit code and what it printed."""
        log = ROOT / "build.log"
        began = log.stat().st_size if log.exists() else 0
        code = self.start("-c", self._main, *arguments, log=log, **environment).wait(300)
        return code, log.read_bytes()[began:].decode()

    def up(self) -> str:
        """`chatserver up` with the tiny model; what it prints once it is ready."""
        log = ROOT / "build/up.log"
        self.start("-c", self._main, "up", "--model", str(ROOT / "tiny"), "--port", "0", log=log)
        wait_until(lambda: re.search(r"open http", log.read_text()), "the start")
        return log.read_text()

    @staticmethod
    def processes(part: str = "") -> list[psutil.Process]:
        """All of ours that have `part` in their command, and what they started: a pool's processes hide their own."""
        found = [process for process in psutil.process_iter() if _is_ours(process, part)]
        return list({*found, *(child for process in found for child in process.children(recursive=True))})

    @staticmethod
    def cut(processes: list[psutil.Process]) -> None:
        """Their end in one moment."""
        for number in (signal.SIGSTOP, signal.SIGKILL):
            for process in processes:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.send_signal(number)
        psutil.wait_procs(processes, timeout=10)

    def remove(self) -> None:
        subprocess.run(["git", "worktree", "remove", "--force", self.folder], check=True)


def _is_ours(process: psutil.Process, part: str) -> bool:
    try:
        started_here = process.environ().get("CHATSERVER_STATE_DIR") == str(STATE)
        return started_here and any(part in word for word in process.cmdline())
    except psutil.Error:
        return False


class Visitor:
    """A browser: its cookie, and a socket that counts what it was sent."""

    def __init__(self, url: str) -> None:
        self.url = url
        jar = CookieJar()
        with build_opener(HTTPCookieProcessor(jar)).open(f"{url}/api/session") as answer:
            self.user = json.load(answer)["user"]
        self.cookie = "; ".join(f"{cookie.name}={cookie.value}" for cookie in jar)
        self.tokens: dict[str, int] = {}
        self.done: set[str] = set()
        self.socket = socketio.Client(reconnection=False)
        self.socket.on("tokens", self._count)
        self.socket.on("done", lambda event: self.done.add(event["id"]))
        self.socket.connect(url, headers={"Cookie": self.cookie}, transports=["websocket"])

    def _count(self, event: dict[str, Any]) -> None:
        self.tokens[event["id"]] = self.tokens.get(event["id"], 0) + 1

    def ask(self, rid: str, model: str = "echo", **fields: Any) -> None:
        messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": QUESTIONS[rid]}]
        sampling = {"max_new_tokens": 1000, "temperature": 0.5, "top_p": 0.9, "seed": 7, "stop": ["###"]}
        payload = {"id": rid, "model": model, "messages": messages, "sampling": sampling, **fields}
        answer = self.socket.call("submit", payload)
        assert answer["ok"], answer

    def wait_for(self, rid: str, num_events: int) -> None:
        wait_until(lambda: self.tokens.get(rid, 0) >= num_events, f"{num_events} events of {rid}")

    def end(self, rid: str) -> None:
        wait_until(lambda: rid in self.done, f"the end of {rid}")

    def http(self, method: str, path: str, body: Any) -> dict[str, Any]:
        """A route of the job page; bytes are sent as a piece of a file."""
        kind = "application/octet-stream" if isinstance(body, bytes) else "application/json"
        headers = {"Origin": self.url, "Content-Type": kind, "Cookie": self.cookie}
        data = body if isinstance(body, bytes) else json.dumps(body)
        answer = requests.request(method, self.url + path, data=data, headers=headers, timeout=30)
        answer.raise_for_status()
        return dict(answer.json())


# -- what the build is asked to do -----------------------------------------------------------------------------------


def write_requests(build: Build, client: redis.Redis, url: str) -> dict[str, Any]:
    """Answers in every state; the worker of the last one is killed with the others still in the queue."""
    control = client.pubsub()
    control.subscribe("chatserver:control")
    asker, other = Visitor(url), Visitor(url)
    worker = ("-m", "bench.synthetic_worker", "--rate", "10", "--chunk", "4", "--slots", "1")
    build.start(*worker, log=ROOT / "build.log", REDIS_URL=_redis_url())
    wait_until(lambda: client.sismember("chatserver:models", "echo"), "the echo worker")
    asker.ask("old-finished")
    asker.end("old-finished")
    asker.ask("old-cancelled")
    asker.wait_for("old-cancelled", 3)
    asker.socket.call("cancel", {"id": "old-cancelled"})
    asker.end("old-cancelled")
    asker.ask("old-failed", "tiny")
    asker.end("old-failed")
    asker.ask("old-halfway")
    asker.wait_for("old-halfway", 3)
    code, said = build.chatserver("send", "--model", "echo", "Too late.", CHATSERVER_QUEUE_DEADLINE_S="1")
    assert (code, "expired" in said) == (1, True), said
    asker.ask("old-queued-batch", priority="batch")
    other.ask("old-queued-other")
    asker.ask("old-queued")
    assert "old-halfway" not in asker.done, "the answer was too short to be cut"
    build.cut(build.processes("bench.synthetic_worker"))
    for visitor in (asker, other):
        visitor.socket.disconnect()
    return {
        "users": {
            name: {"user": each.user, "cookie": each.cookie} for name, each in (("asker", asker), ("other", other))
        },
        "control": sorted({message["data"].decode() for message in _messages(control)}),
    }


def _redis_url() -> str:
    password = STATE / "redis/password.conf"  # of builds from 2026-11-29 on
    login = f":{password.read_text().split()[-1]}@" if password.exists() else ""
    return f"redis://{login}127.0.0.1:{(STATE / 'redis/port').read_text()}/0"


def _messages(channel: Any) -> Iterator[dict[str, Any]]:
    while (message := channel.get_message(timeout=0.2)) is not None:
        if message["type"] == "message":
            yield message


def write_page_cleaning(visitor: Visitor) -> tuple[str, dict[str, Any]]:
    """A finished cleaning of the job page, and an upload of which half has come: (its id, what is known of that)."""
    data = json.dumps([_turns(number, f"It is {2 * number}.") for number in range(40)]).encode()
    upload = visitor.http("POST", "/api/uploads", {"name": "sums.json", "size": len(data)})
    visitor.http("PUT", f"/api/uploads/{upload['id']}?offset=0", data)
    order = {"key": "order-of-the-old-build", "recipe": RECIPE.format(name="page", shard_mib=1), "name": "Sums"}
    job = visitor.http("POST", "/api/jobs", {**order, "uploads": [upload["id"]]})["job"]["id"]
    page = requests.Session()
    wait_until(lambda: page.get(f"{visitor.url}/api/jobs/{job}").json()["job"]["state"] == "finished", "the cleaning")
    half = visitor.http("POST", "/api/uploads", {"name": "half.json", "size": len(data)})
    visitor.http("PUT", f"/api/uploads/{half['id']}?offset=0", data[:100])
    return job, {"id": half["id"], "rest": data[100:].decode()}


def _turns(number: int, answer: str) -> dict[str, Any]:
    turns = [{"from": "human", "value": f"What is {number} plus {number}?"}, {"from": "gpt", "value": answer}]
    return {"id": f"c{number}", "conversations": turns}


def write_trainings(build: Build, cleaning: str) -> dict[str, str]:
    """A finished one, whose model is wanted, and one that dies between two checkpoints."""
    data = str(STATE / "jobs" / cleaning / "data.jsonl")
    for name, steps in (("tiny-tuned", 2), ("tiny-half", 6)):
        (ROOT / f"{name}.yaml").write_text(TRAINING.format(name=name, steps=steps, model=ROOT / "tiny"))
    code, said = build.chatserver("train", "submit", str(ROOT / "tiny-tuned.yaml"), "--data", data, "--wait")
    assert code == 0, said
    finished = _job_of(said)
    build.chatserver("models", "serve", "tiny-tuned")
    code, said = build.chatserver("train", "submit", str(ROOT / "tiny-half.yaml"), "--data", data)
    assert code == 0, said
    half = _job_of(said)
    wait_until(lambda: build.processes("--out"), "the training program")
    processes = build.processes("trained/tiny-half")  # to look for them takes longer than a step
    wait_until(lambda: _checkpoint() >= 2, "the second checkpoint")
    build.cut(processes)
    assert _checkpoint() < 6, "the training was too fast to be cut: try again"
    return {"finished": finished, "half": half, "checkpoint": str(_checkpoint())}


def _checkpoint() -> int:
    found = STATE.glob("trained/tiny-half-*/checkpoints/checkpoint-*/COMPLETE.json")
    return max((int(path.parent.name.removeprefix("checkpoint-")) for path in found), default=0)


def _job_of(said: str) -> str:
    match = re.search(r"submitted as ([^;]+);", said)
    assert match, said
    return match[1]


def write_half_cleaning(build: Build) -> str:
    """A cleaning of many shards; the power fails when some of them are done."""
    chance = random.Random(7)
    words = [f"word{number:03d}" for number in range(200)]
    records = [_turns(number, " ".join(chance.choices(words, k=60))) for number in range(100)]
    (ROOT / "words.json").write_text(json.dumps(records + records[:10]))
    os.utime(ROOT / "words.json", (1_000_000_000, 1_000_000_000))  # a run remembers it; an archive keeps whole seconds
    (ROOT / "shards.yaml").write_text(RECIPE.format(name="shards", shard_mib=0.004))
    arguments = ["--in", str(ROOT / "words.json"), "--out", str(ROOT / "half")]
    code, said = build.chatserver("clean", "submit", str(ROOT / "shards.yaml"), *arguments)
    assert code == 0, said
    processes = build.processes()  # to look for them takes longer than the cleaning
    wait_until(lambda: len(list(ROOT.glob("half/.work/shard-0-*"))) >= 5, "five shards")
    build.cut(processes)
    assert not (ROOT / "half/.work/judge-0").exists(), "the cleaning was too fast to be cut: try again"
    return _job_of(said)


# -- the whole -------------------------------------------------------------------------------------------------------


def write_tiny_model(folder: Path) -> None:
    """One layer over bytes, with random weights: what loads, trains and says nothing sensible."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(models.BPE({character: index for index, character in enumerate(alphabet)}, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<|im_end|>")
    tokenizer.chat_template = (
        "{% for m in messages %}{{ m.role }}: {{ m.content }}<|im_end|>{% endfor %}"
        "{% if add_generation_prompt %}assistant: {% endif %}"
    )
    torch.manual_seed(7)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=8,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=1,
        max_position_embeddings=256,
        tie_word_embeddings=True,
        eos_token_id=tokenizer.eos_token_id,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    GenerationConfig(eos_token_id=[tokenizer.eos_token_id]).save_pretrained(folder)


def write_state(build: Build) -> dict[str, Any]:
    """Everything, up to the power failure; what the tests must know of it."""
    url = re.findall(r"open (http://\S+)", build.up())[-1]
    client = redis.Redis.from_url(_redis_url())
    told = write_requests(build, client, url)
    page, upload = write_page_cleaning(Visitor(url))
    trainings = write_trainings(build, page)
    half = write_half_cleaning(build)
    written_ms = int(time.time() * 1000)
    jobs = {"page": page, "half": half, "training": trainings["finished"], "half_training": trainings["half"]}
    return {
        "root": str(ROOT),
        "written_ms": written_ms,
        **told,
        "questions": QUESTIONS,
        "jobs": jobs,
        "checkpoint": int(trainings["checkpoint"]),
        "upload": upload,
    }


def pack(folder: Path, about: dict[str, Any]) -> None:
    """What the tests read."""
    folder.mkdir(parents=True, exist_ok=True)
    with tarfile.open(folder / "root.tar.xz", "w:xz", preset=9) as archive:
        for path in sorted(ROOT.rglob("*")):
            name = str(path.relative_to(ROOT))
            if not name.startswith(LEFT_OUT):
                archive.add(path, name, recursive=False, filter=_anonymous)
    (folder / "about.json").write_text(json.dumps(about, indent=2, ensure_ascii=False) + "\n")


def _anonymous(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = ""
    return entry


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ref", help="commit or tag of the build that writes")
    parser.add_argument("folder", type=Path, help="where the fixtures go, such as tests/upgrades/build_2026_11_29")
    options = parser.parse_args()
    ROOT.mkdir()  # another run's stays
    commit = subprocess.run(["git", "rev-parse", options.ref], check=True, capture_output=True, text=True).stdout
    build = Build(options.ref)
    try:
        write_tiny_model(ROOT / "tiny")
        pack(options.folder, {"commit": commit.strip(), **write_state(build)})
    finally:
        build.cut(build.processes())
        build.remove()
    shutil.rmtree(ROOT)


if __name__ == "__main__":
    main()
