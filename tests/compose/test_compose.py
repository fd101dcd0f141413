"""The whole deployment, from the published port: it answers, it recovers, it keeps what it was given.

One deployment for all tests, in this order; each leaves it up.
"""

import http.client
import json
import uuid
from pathlib import Path

import pytest
import requests

from services.chat.dead_letters import DeadLetters
from services.chat.journal import Journal
from services.chat.queue import Limits
from services.chat.requests import Requests
from services.serving.registry import Registry
from services.wire.keys import Keys
from services.wire.messages import ChatRequest, Message
from tests.compose.stack import MODEL, STARTED_S, URL, Stack, run
from tests.end_to_end.system import Browser, answers, wait_until

pytestmark = pytest.mark.timeout(900)

CAPITAL = "What is the capital of France?"
STORY = "Tell me a long story about a lighthouse keeper."
OURS = ("web", "worker", "cleaner", "batches", "beat")


def ask(browser: Browser, text: str, max_tokens: int) -> str:
    """Submits a question that has one answer: greedy."""
    rid = uuid.uuid4().hex
    answer = browser.ask(rid, text, MODEL, temperature=0, max_new_tokens=max_tokens)
    assert answer["ok"], answer
    return rid


def ended(visitor: Browser, rid: str) -> str:
    """What was shown, without gap or repeat, to a visitor who comes again after a break, as the page does."""
    shown_to = [visitor]
    while not shown_to[-1].done.get(rid):
        now = shown_to[-1]
        wait_until(lambda now=now: now.done.get(rid) or not now.client.connected, f"the end of {rid}", STARTED_S)
        if not now.done.get(rid):
            assert len(shown_to) < 10, "the connection breaks again and again"
            shown_to.append(_come_again(now, rid))
    for each in shown_to[1:]:
        each.close()
    end = shown_to[-1].done[rid][0]
    problems = [problem for each in shown_to for problem in each.problems]
    assert (end["status"], problems) == ("finished", []), (end, problems)
    return shown_to[-1].text[rid]


def _come_again(before: Browser, rid: str) -> Browser:
    wait_until(lambda: answers(f"{URL}/readyz"), "the page", STARTED_S)
    again = Browser(URL, cookie=before.cookie)
    shown = before.text.get(rid, "")
    again.text[rid] = shown
    again.call("watch", {"id": rid, "offset": len(shown), "nonce": before.nonce.get(rid, "")})
    return again


def journalled(stack: Stack, rid: str) -> str:
    """What stands in Redis. Another run is no measure: an engine that computes a beginning anew may round otherwise."""
    with stack.redis() as redis:
        found = Journal(redis, Keys("chatserver")).read(rid)
    assert found is not None
    return "".join(event.text for event in found[1])


def test_a_question_is_answered_through_the_published_port(browser: Browser) -> None:
    text = ended(browser, ask(browser, CAPITAL, 32))
    print(f"\nasked through {URL}: {CAPITAL}\nthe deployment says: {text}")
    assert "Paris" in text


def test_one_request_can_be_followed_through_the_logs(stack: Stack, browser: Browser) -> None:
    rid = ask(browser, CAPITAL, 8)
    ended(browser, rid)
    for service in ("web", "worker"):
        wait_until(lambda service=service: _lines_about(stack, service, rid), f"a line of {service} about {rid}")


def _lines_about(stack: Stack, service: str, rid: str) -> list[str]:
    return [line["message"] for line in stack.log_lines(service) if line.get("rid") == rid]


def test_nothing_runs_as_root_or_may_write_where_it_lives_and_the_worker_has_no_torch(stack: Stack) -> None:
    for container in stack.containers():
        found = stack.inspect(container)
        status = Path(f"/proc/{found['State']['Pid']}/status").read_text()
        uids = [line for line in status.splitlines() if line.startswith("Uid:")]
        assert uids and "0" not in uids[0].split()[1:], f"{found['Name']} runs as root"
        assert found["HostConfig"]["ReadonlyRootfs"], found["Name"]
        assert found["HostConfig"]["Memory"] > 0, f"{found['Name']} may take all of the machine's memory"
    without = "import importlib.util, sys; sys.exit(importlib.util.find_spec('torch') is not None)"
    for service in OURS:
        stack.execute(service, "python", "-c", without)


def test_a_service_sees_its_own_secrets_and_the_proxy_no_redis(stack: Stack) -> None:
    assert stack.execute("worker", "ls", "/secrets").split() == ["redis_url"]
    assert "://worker:" in stack.execute("worker", "cat", "/secrets/redis_url")
    assert stack.execute("web", "ls", "/secrets").split() == ["database_url", "job_key", "redis_url", "secret_key"]
    assert stack.execute("cleaner", "ls", "/secrets").split() == ["database_url", "job_key", "redis_url"]
    networks = {}
    for service in ("proxy", "redis", "web"):
        (container,) = stack.containers(service)
        networks[service] = set(stack.inspect(container)["NetworkSettings"]["Networks"])
    assert not networks["proxy"] & networks["redis"]
    assert networks["web"] == networks["proxy"] | networks["redis"]
    for container in stack.containers():
        assert stack.inspect(container)["HostConfig"]["PidsLimit"] > 0


def test_only_the_proxy_is_published_and_only_on_the_loopback(stack: Stack) -> None:
    published = {}
    for container in stack.containers():
        found = stack.inspect(container)
        ports = found["NetworkSettings"]["Ports"]
        for where in [each for bindings in ports.values() for each in bindings or []]:
            published[found["Config"]["Labels"]["com.docker.compose.service"]] = where
    assert published == {"proxy": {"HostIp": "127.0.0.1", "HostPort": "8000"}}


def test_the_job_pages_answer_a_browser_here_and_nobody_who_came_through_another_proxy(stack: Stack) -> None:
    stack.wait_for_page()
    assert _status("/jobs") == 200
    assert _status("/jobs", {"Host": "chat.example.org"}) == 403
    for header in ("X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "Forwarded", "Via", "X-Real-IP"):
        assert _status("/jobs", {header: "203.0.113.9"}) == 403, header
    assert _status("/jobs", protocol=(10, "HTTP/1.0")) == 403
    # A header that `Connection` names is dropped on the way, and so would be the mark of another proxy.
    dropping = {"X-Forwarded-For": "203.0.113.9", "Connection": "X-Original-Forwarded-For"}
    assert _status("/jobs", dropping) == 400
    assert _status("/jobs", {"Connection": "keep-alive"}) == 200


def _status(path: str, headers: dict[str, str] | None = None, protocol: tuple[int, str] = (11, "HTTP/1.1")) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", 8000, timeout=20)
    connection._http_vsn, connection._http_vsn_str = protocol  # type: ignore[attr-defined]
    connection.request("GET", path, headers=headers or {})
    try:
        return connection.getresponse().status
    finally:
        connection.close()


def test_a_cleaning_runs_through_celery(stack: Stack) -> None:
    command = ("clean", "submit", "infra/recipes/vicuna.yaml", "--in", "/app/pipelines/samples/sharegpt_html.json")
    stack.execute("cleaner", "chatserver", *command, "--out", "/state/cleaned", "--wait")
    assert int(stack.execute("cleaner", "sh", "-c", "wc -l </state/cleaned/data.jsonl")) > 0


def test_a_browser_that_polls_stays_with_one_of_two_web_processes(stack: Stack) -> None:
    stack.up("--scale", "web=2", "--no-recreate")
    visitors = [Browser(URL, transport="polling") for _ in range(4)]
    try:
        rids = [ask(visitor, CAPITAL, 24) for visitor in visitors]
        for visitor, rid in zip(visitors, rids, strict=True):
            assert "Paris" in ended(visitor, rid)
    finally:
        for visitor in visitors:
            visitor.close()
    stack.up("--scale", "web=1", "--no-recreate")


def test_a_killed_web_process_comes_back_and_the_answer_went_on(stack: Stack, browser: Browser) -> None:
    rid = ask(browser, STORY, 120)
    shown = browser.wait_for_text(rid, 40, STARTED_S)
    (web,) = stack.containers("web")
    stack.kill_main_process(web)
    stack.wait_for_restart(web)
    text = ended(browser, rid)
    assert text == journalled(stack, rid) and text.startswith(shown)


def test_a_killed_redis_comes_back_with_everything(stack: Stack, browser: Browser) -> None:
    rid = ask(browser, STORY, 120)
    shown = browser.wait_for_text(rid, 40, STARTED_S)
    (redis,) = stack.containers("redis")
    stack.kill_main_process(redis)
    stack.wait_for_restart(redis)
    text = ended(browser, rid)
    assert text == journalled(stack, rid) and text.startswith(shown)


def test_a_killed_worker_is_taken_over_in_the_middle_of_the_sentence(stack: Stack, browser: Browser) -> None:
    stack.up("--scale", "worker=3", "--no-recreate")
    stack.wait_for_workers(3)
    rid = ask(browser, STORY, 160)
    shown = browser.wait_for_text(rid, 60, STARTED_S)
    victim = _owner(stack, rid)
    stack.kill_main_process(victim)
    text = ended(browser, rid)
    epochs = sorted({line["epoch"] for line in stack.log_lines("worker") if line.get("rid") == rid and "epoch" in line})
    print(
        f"\nkilled {stack.inspect(victim)['Name']} after {len(shown)} characters; taken over, epochs {epochs}:\n{text}"
    )
    assert text == journalled(stack, rid) and text.startswith(shown)
    assert epochs == [1, 2]
    stack.wait_for_restart(victim)
    stack.up("--scale", "worker=1", "--no-recreate")


def _owner(stack: Stack, rid: str) -> str:
    """The container whose worker has a request."""
    with stack.redis() as redis:
        keys = Keys("chatserver")
        owner = redis.hget(keys.state(rid), "wid").decode()
        (host,) = [worker.host for worker in Registry(redis, keys).workers() if worker.wid == owner]
    (found,) = [each for each in stack.containers("worker") if each.startswith(host)]
    return found


def test_the_doctor_finds_nothing_wrong(stack: Stack) -> None:
    said = stack.compose("run", "--rm", "-T", "doctor")
    print(f"\n{said}")
    assert "WRONG" not in said


def test_flower_shows_the_cleaner_to_those_who_know_the_password(stack: Stack) -> None:
    stack.compose("--profile", "flower", "up", "--detach", "--wait", "flower")
    address = "http://127.0.0.1:5555/workers?json=1"
    assert requests.get(address, timeout=20).status_code == 401
    login = tuple(stack.execute("flower", "cat", "/secrets/flower_login").split(":"))

    def seen() -> bool:
        rows = requests.get(address, auth=login, timeout=20).json()["data"]
        return any(row["hostname"].startswith("clean-") for row in rows)

    wait_until(seen, "the cleaner on Flower's page", STARTED_S)
    stack.compose("--profile", "flower", "rm", "--stop", "--force", "flower")


def test_a_worker_of_another_machine_comes_in_by_tls_and_password(stack: Stack, tmp_path: Path) -> None:
    files = ("-f", "docker-compose.yml", "-f", "infra/docker/remote-workers.yaml")
    stack.compose(*files, "up", "--detach", "--wait", "--wait-timeout", f"{STARTED_S:g}", "redis")
    authority = tmp_path / "ca.crt"
    authority.write_text(stack.execute("redis", "cat", "/secrets/tls/ca.crt"))
    password = stack.execute("redis", "cat", "/secrets/worker_password")
    stack.wait_for_workers()
    address = f"127.0.0.1:6380/0?ssl_ca_certs={authority}&ssl_check_hostname=false"
    assert MODEL in _models(f"rediss://worker:{password}@{address}")
    with pytest.raises(AssertionError, match="refuses the credentials"):
        run("env", f"REDIS_URL=rediss://worker:{password}@{address}", ".venv/bin/chatserver", "jobs", "list")
    with pytest.raises(AssertionError, match="refuses the credentials"):
        _models(f"rediss://worker:wrong-{password}@{address}")


def _models(redis_url: str) -> str:
    return run("env", f"REDIS_URL={redis_url}", ".venv/bin/chatserver", "models")


def test_a_worker_sees_trained_models_and_nothing_else_of_the_state_folder(stack: Stack) -> None:
    stack.execute(
        "web", "sh", "-c", "mkdir -p /state/uploads/u /state/trained/july && echo weights >/state/trained/july/w"
    )
    assert stack.execute("worker", "cat", "/state/trained/july/w") == "weights\n"
    assert "uploads" not in stack.execute("worker", "ls", "-A", "/state").split()
    assert stack.execute("worker", "ls", "-A", "/state/home").split() == []
    with pytest.raises(AssertionError, match="Read-only file system"):
        stack.execute("worker", "touch", "/state/trained/july/w")
    stack.execute("worker", "touch", "/cache/converted")


def test_the_queue_and_the_dead_letters_come_back_from_a_backup(stack: Stack, tmp_path: Path) -> None:
    """The drill of docs/operations.md: every volume is lost."""
    stack.compose("stop", "worker")
    _give_up(stack, "given-up")
    _submit(stack, "waiting")
    stack.execute("cleaner", "sh", "-c", "echo kept >/state/a-job")
    run("infra/docker/backup.sh", str(tmp_path / "backup"))
    stack.compose("--profile", "*", "down", "--volumes")
    print("\n" + run("infra/docker/restore.sh", str(tmp_path / "backup")))
    stack.up()
    dead = json.loads(stack.execute("web", "chatserver", "dead", "--json"))
    assert [(letter["rid"], letter["reason"]) for letter in dead] == [("given-up", "poison")]
    with stack.redis() as redis:
        journal = Journal(redis, Keys("chatserver"))
        wait_until(lambda: journal.head("waiting").status == "finished", "the answer to what waited", STARTED_S)
    assert stack.execute("cleaner", "cat", "/state/a-job") == "kept\n"
    with pytest.raises(AssertionError, match="the deployment is up"):
        run("infra/docker/restore.sh", str(tmp_path / "backup"))


def _submit(stack: Stack, rid: str) -> None:
    with stack.redis() as redis:
        Requests(redis, Keys("chatserver"), limits=Limits(requests=10)).submit(
            ChatRequest(rid, "ann", MODEL, (Message("user", CAPITAL),))
        )


def _give_up(stack: Stack, rid: str) -> None:
    _submit(stack, rid)
    with stack.redis() as redis:
        ours = Requests(redis, Keys("chatserver"), limits=Limits(requests=10))
        entry = ours.queue(MODEL).take("test", suspects=True)
        assert entry is not None
        ours.journal.give_up(rid, "ann", "poison", "")
        ours.queue(MODEL).ack(entry, "poison")
        assert [letter.rid for letter in DeadLetters(redis, ours).newest(10)] == [rid]


def test_everything_stops_in_order(stack: Stack) -> None:
    """Within its grace: none is killed."""
    stack.compose("stop")
    codes = {}
    for container in stack.compose("ps", "--all", "--quiet").split():
        found = stack.inspect(container)
        codes[found["Name"]] = found["State"]["ExitCode"]
    assert codes and set(codes.values()) == {0}, codes
    stack.up()
