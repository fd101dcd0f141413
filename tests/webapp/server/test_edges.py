"""Attacks on a real web process. After each it is alive, answers an honest question, and has logged no traceback."""

import base64
import contextlib
import json
import random
import select
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.connection.embedded import free_port
from tests.conftest import Eventually
from tests.end_to_end.system import System, answers, running_system, session_cookie, wait_until
from tests.webapp.server.attacker import Attacker, everything, exchange, flood, frame, healthy, request, tcp, upgrade
from webapp.server.transport import MAX_EVENTS

MAX_MESSAGE_BYTES = 4 * 200_000 + 65_536
OTHER_ORIGIN = "https://pages.example"
EVENTS = ("submit", "watch", "unwatch", "cancel", "received")


@dataclass
class Web:
    """A web process, who serves behind it, and what it has written."""

    system: System
    url: str
    process: psutil.Process
    log: Path
    numbers: Iterator[int] = field(default_factory=lambda: iter(range(10**9)))

    def rid(self) -> str:
        return f"edge-{next(self.numbers)}"


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Web]:
    """Three models: `echo` (80 code points a second), `narrow` (as slow, one slot), `fast`."""
    with running_system(tmp_path_factory.mktemp("edges"), allowed_origins=OTHER_ORIGIN) as system:
        workers = [
            system.start(
                "tests.stand_ins.synthetic_worker", "--model", model, "--rate", rate, "--chunk", chunk, "--slots", slots
            )
            for model, rate, chunk, slots in (
                ("echo", "20", "4", "8"),
                ("narrow", "20", "4", "1"),
                ("fast", "50", "1000", "64"),
            )
        ]
        for worker in workers:
            system.wait_for_worker(worker)
        url = system.web()
        yield Web(system, url, psutil.Process(system.processes[-1].pid), system.folder / "process-3.log")


@pytest.fixture(autouse=True)
def unharmed(web: Web) -> Iterator[None]:
    """What every attack must leave behind."""
    yield
    assert healthy(web.url)
    with Attacker(web.url) as honest:
        rid = web.rid()
        assert honest.ask(rid, "still there?", "fast") == {"ok": True, "id": rid}
        assert honest.answer(rid) == "still there?"
    log = web.log.read_text()
    assert "Traceback" not in log and " ERROR " not in log


# -- packets ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "packet",
    [
        "",
        "x",
        "0",
        "4",
        "4[",
        "4" + "[" * 5000,
        "49",
        "4²",
        "44{}",
        "43[]",
        "43" + "9" * 100 + "[]",
        "42",
        "42{",
        "41/x,",
        "451-[]",
        "4599999999-[]",
        "42/other,[]",
        "4" + "\x00" * 100,
        "\x00",
        "2",
        "3" + "[" * 5000,
    ],
)
def test_what_is_no_packet_of_a_client_ends_the_socket(web: Web, packet: str) -> None:
    with Attacker(web.url) as attacker:
        attacker.send(packet)
        assert attacker.ends()


@pytest.mark.parametrize(
    "packet",
    [
        "42[",
        "42[]",
        "42[{}]",
        "42[[]]",
        '42["*",{}]',
        "42" + "[" * 5000,
        "40{",
        "42[" + "9" * 101 + "]",
        '42["watch",{"id":"\\',
    ],
)
def test_a_packet_that_cannot_be_parsed_ends_the_socket(web: Web, packet: str) -> None:
    with Attacker(web.url) as attacker:
        attacker.send(packet)
        assert attacker.ends()


def test_binary_packets_end_the_socket(web: Web) -> None:
    """The parts of a binary event were kept until its last one came, which it never did."""
    for attack in ([b"abc"], ['451-["watch",{"_placeholder":true,"num":7}]', b"abc"]):
        with Attacker(web.url) as attacker:
            with contextlib.suppress(OSError):
                for packet in attack:
                    attacker.send(packet, opcode=2 if isinstance(packet, bytes) else 1)
            assert attacker.ends()


def test_names_of_the_library_and_unknown_names_are_harmless_events(web: Web) -> None:
    with Attacker(web.url) as attacker:
        for event in ("connect", "disconnect"):
            attacker.call(event, 1, 2, 3)
        for event in ("nope", "__class__", 5, None, 1e300, "\0"):
            assert attacker.call(event, {})["error"]["code"] == "invalid_request"


def test_a_wrong_number_of_arguments_is_an_invalid_request(web: Web) -> None:
    with Attacker(web.url) as attacker:
        for event in EVENTS:
            for arguments in ((), ({}, {}), (None,), ([],), ("x",), (True,)):
                assert attacker.call(event, *arguments)["error"]["code"] == "invalid_request"


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**90), 10**90)
    | st.floats()
    | st.text(st.characters(exclude_categories=()))
    | st.sampled_from(["\0", "\ud800", "echo", "user", "a" * 200, "__proto__", "../..", "{x}", 2**63, -1, 1e308]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=12,
)
names = st.sampled_from(["id", "offset", "nonce", "model", "messages", "sampling", "role", "content", "stop", "seed"])
payloads = st.dictionaries(names, json_values, max_size=6) | json_values
well_named = st.builds(lambda rest: {**rest, "id": "fuzz"}, st.dictionaries(names, json_values, max_size=5))


def test_any_json_is_acknowledged_and_a_refusal_says_why(web: Web) -> None:
    with Attacker(web.url) as attacker:

        @settings(
            max_examples=200, derandomize=True, database=None, deadline=None, suppress_health_check=list(HealthCheck)
        )
        @given(st.sampled_from(EVENTS), payloads | well_named)
        def check(event: str, payload: Any) -> None:
            answer = attacker.call(event, payload)
            error = answer.get("error", {"code": "", "message": ""})
            assert answer["ok"] is (not error["code"]) and "Traceback" not in error["message"]
            assert error["code"] in ("", "invalid_request", "unknown_model", "gone", "busy", "forbidden"), error
            assert len(error["message"]) < 1000

        check()


@pytest.mark.parametrize("field", ["id", "nonce", "offset", "sampling", "messages"])
def test_deep_json_is_an_invalid_request_at_every_depth(web: Web, field: str) -> None:
    """The message quoted what was sent, whose `repr` fails at a depth at which parsing does not."""
    for depth in (50, 800, 900, 940, 960, 980, 990):
        deep = f'"{field}":' + "[" * depth + "]" * depth
        payload = f"{{{deep}}}" if field == "id" else f'{{"id":"x",{deep}}}'
        with Attacker(web.url) as attacker:
            with contextlib.suppress(OSError):  # the deepest cannot be parsed, and end the socket
                attacker.send(f'421["watch",{payload}]')
                attacker.send(f'422["submit",{payload}]')
            attacker.read_until(lambda attacker=attacker: len(attacker.acks) == 2)
            codes = {answer.get("error", {}).get("code", "") for answer in attacker.acks.values()}
            assert codes <= {"", "invalid_request"}  # `watch` does not look at what `submit` takes
            assert len(attacker.acks) == 2 or depth > 900


@pytest.mark.parametrize(
    "value", ["NaN", "Infinity", "-Infinity", "1e999", "true", "-1", "1.5", '"7"', "null", "[]", "9" * 90]
)
def test_a_number_that_is_none_is_refused(web: Web, value: str) -> None:
    question = '"model":"fast","messages":[{"role":"user","content":"x"}]'
    with Attacker(web.url) as attacker:
        attacker.send(f'421["watch",{{"id":"x","offset":{value}}}]')
        attacker.send(f'422["received",{{"id":"x","offset":{value}}}]')
        attacker.send(f'423["submit",{{"id":"x",{question},"sampling":{{"max_new_tokens":{value}}}}}]')
        for number in (1, 2, 3):
            assert attacker.acknowledgement(number)["error"]["code"] == "invalid_request"


# -- bounds ----------------------------------------------------------------------------------------------------------


def grown_mib(web: Web, before: int) -> float:
    return float(web.process.memory_info().rss - before) / 2**20


def test_a_client_that_never_reads_and_watches_again_and_again_costs_little(web: Web) -> None:
    """Each watch brings a new window, and all were queued: 8 MB in the process, and megabytes in the kernel."""
    with Attacker(web.url) as owner, Attacker(web.url, owner.cookie, receive_bytes=4096) as silent:
        answers = [web.rid() for _ in range(12)]
        for rid in answers:
            owner.ask(rid, "0123456789" * 2_000, "fast")
        for rid in answers:
            assert len(owner.answer(rid)) == 20_000
        for _ in range(30):
            for rid in answers:
                silent.post("watch", {"id": rid, "offset": 0, "nonce": ""})
            assert owner.call("unwatch", {"id": rid})["ok"], "by now the server has sent what it would"
        # The kernel keeps up to a megabyte; what of its events the server had not served yet brings some more.
        assert silent.waiting_bytes() < len(answers) * 20_000 + 2 * 2**20, "30 times as much was asked for"
        assert silent.call("watch", {"id": answers[0], "offset": 0, "nonce": ""}) == {"ok": True}
        assert len(silent.answer(answers[0])) == 20_000


@pytest.mark.slow  # waits for a client that answers no ping
def test_the_slowest_are_given_up_and_go_on_from_their_cursors(web: Web, eventually: Eventually) -> None:
    """A process's memory was bounded for each client, and not for all of them."""
    url = web.system.web(max_unsent_mib=4, max_user_sockets=200)
    log = web.system.folder / f"process-{len(web.system.processes) - 1}.log"
    with contextlib.ExitStack() as stack:
        owner = stack.enter_context(Attacker(url))
        answers = [web.rid() for _ in range(12)]
        for rid in answers:
            owner.ask(rid, "0123456789" * 2_000, "fast")
        for rid in answers:
            owner.answer(rid)
        silent = [stack.enter_context(Attacker(url, owner.cookie, receive_bytes=4096)) for _ in range(100)]
        for attacker in silent:
            with contextlib.suppress(OSError):  # it was given up already
                for rid in answers:
                    attacker.post("watch", {"id": rid, "offset": 0, "nonce": ""})
        eventually(lambda: "gave up a socket" in log.read_text(), "the bound", 30)
        late = web.rid()
        reader = stack.enter_context(Attacker(url, owner.cookie))  # the owner's socket has answered no ping meanwhile
        assert reader.ask(late, "who reads is served", "fast")["ok"] and reader.answer(late) == "who reads is served"
        given_up = next(attacker for attacker in silent if attacker.is_closed_in_the_end() and attacker.texts)
        rid, nonce = next(iter(given_up.texts.items()))
        text = given_up.text(rid)
        again = stack.enter_context(Attacker(url, owner.cookie))
        assert again.call("watch", {"id": rid, "offset": len(text), "nonce": nonce}) == {"ok": True}
        assert text + again.answer(rid, len(text)) == "0123456789" * 2_000
    web.system.processes[-1].terminate()


def test_a_user_has_so_many_sockets_and_no_more(web: Web) -> None:
    """One cookie took every socket of a web process."""
    url = web.system.web(max_user_sockets=3)
    with contextlib.ExitStack() as stack:
        first = stack.enter_context(Attacker(url))
        others = [stack.enter_context(Attacker(url, first.cookie)) for _ in range(2)]
        refused = exchange(url, upgrade(url, first.cookie))
        assert (
            refused.startswith(b"HTTP/1.1 429 ") and b'"code": "user_limit"' in refused and b"Retry-After: " in refused
        )
        status, polled = request(url, "GET", "/socket.io/?EIO=4&transport=polling", Cookie=first.cookie)
        assert status == 429 and json.loads(polled)["error"]["code"] == "user_limit"
        stack.enter_context(Attacker(url))  # somebody else's
        others[0].send("1")
        assert others[0].ends()
        stack.enter_context(Attacker(url, first.cookie))
    web.system.processes[-1].terminate()


@pytest.fixture
def small(web: Web) -> Iterator[str]:
    """The address of a web process with small bounds. A proxy stands before it, and says who asks."""
    yield web.system.web(
        max_unread_mib=4, max_address_sockets=3, max_user_submits_per_minute=5, max_address_submits_per_minute=7,
        published_on="192.0.2.1", accounts="off",
    )  # fmt: skip
    web.system.processes[-1].terminate()


def rss_mib(web: Web) -> float:
    """Of the web process that was started last."""
    return float(psutil.Process(web.system.processes[-1].pid).memory_info().rss) / 2**20


def test_messages_without_an_end_have_one_bound_for_all_of_them(web: Web, small: str) -> None:
    """100 strangers with 850 KB each cost 330 MiB: the limit was that of one message."""
    half = ('421["submit","' + ("x" * 4000 + "𝄞") * 200).encode()
    with contextlib.ExitStack() as stack:
        before = rss_mib(web)
        for _ in range(40):
            stranger = stack.enter_context(tcp(small))
            stranger.sendall(upgrade(small, "") + frame(half, final=False))
        with Attacker(small) as honest:
            rid = web.rid()
            assert honest.ask(rid, "y" * 50_000)["ok"] and honest.answer(rid) == "y" * 50_000
        assert rss_mib(web) - before < 16


def heard(socks: list[socket.socket]) -> list[socket.socket]:
    """To whom the server has said something."""
    return select.select(socks, [], [], 0)[0]


def test_bodies_without_an_end_have_the_same_bound_and_are_told(web: Web, small: str) -> None:
    """300 half-sent requests cost 250 MiB for half a minute."""
    head = b"POST /api/session HTTP/1.1\r\nHost: localhost\r\n"
    length, chunk = head + b"Content-Length: 800000\r\n\r\n", head + b"Transfer-Encoding: chunked\r\n\r\nc34ff\r\n"
    with contextlib.ExitStack() as stack:
        before = rss_mib(web)
        socks = [stack.enter_context(tcp(small)) for _ in range(40)]
        for number, sock in enumerate(socks):
            sock.sendall((length, chunk)[number % 2] + b"x" * 799_998)
        wait_until(lambda: len(heard(socks)) >= 35, "the word to all but the five that have room")
        for told in map(everything, heard(socks)):
            assert told.startswith(b"HTTP/1.1 429 ") and b'"busy"' in told and b"Retry-After: 5\r\n" in told
        wait_until(lambda: rss_mib(web) - before < 16, "the memory of the refused, which is given back a second later")
        assert request(small, "POST", "/api/session", b"x" * 800_000)[0] == 405, "a whole one is read and answered"


def test_whole_messages_that_wait_for_redis_have_the_same_bound(web: Web, small: str) -> None:
    """While Redis stood still, each socket piled up eight of them, and all that was made of them."""
    question = {
        "model": "fast",
        "messages": [{"role": "user", "content": "\u6c49" * 140_000}],
    }  # 840 KB with its escapes
    with contextlib.ExitStack() as stack:
        attackers = [stack.enter_context(Attacker(small)) for _ in range(8)]
        web.system.redis.client_pause(1500, all=True)
        calls = [(attacker, attacker.post("submit", {"id": web.rid(), **question})) for attacker in attackers]
        errors = [attacker.acknowledgement(number).get("error", {}) for attacker, number in calls]
        assert {"busy"} < {error.get("code") for error in errors}, "some were served"
        assert {error["retry_after_s"] for error in errors if error.get("code") == "busy"} == {5}


def test_an_upload_may_be_larger_than_the_bound(web: Web) -> None:
    """Its pieces count while they are read, and go to the disk."""
    url = web.system.web(max_unread_mib=4)
    origin, piece = {"Origin": url, "Content_Type": "application/octet-stream"}, b"x" * 524_288
    about = json.dumps({"name": "many.jsonl", "size": 12 * len(piece)}).encode()
    status, body = request(url, "POST", "/api/uploads", about, Origin=url, Content_Type="application/json")
    assert status == 201
    path = f"/api/uploads/{json.loads(body)['id']}"
    for number in range(12):
        status, body = request(url, "PUT", f"{path}?offset={number * len(piece)}", piece, **origin)
        assert status == 200, body
    assert json.loads(body)["offset"] == 12 * len(piece) and request(url, "DELETE", path, **origin)[0] == 200
    web.system.processes[-1].terminate()


def test_one_address_opens_so_many_sockets_whoever_it_is(web: Web, small: str) -> None:
    """Cookies are free: a limit of each user's sockets is none."""
    with contextlib.ExitStack() as stack:
        first = stack.enter_context(Attacker(small, address="1.1.1.1"))
        for _ in range(2):
            stack.enter_context(Attacker(small, address="1.1.1.1"))
        refused = exchange(small, upgrade(small, session_cookie(small), address="1.1.1.1"))
        assert refused.startswith(b"HTTP/1.1 429 ") and b'"user_limit"' in refused and b"your address" in refused
        stack.enter_context(Attacker(small, address="8.8.8.8"))
        stack.enter_context(Attacker(small))  # of a private network
        first.send("1")
        assert first.ends()
        stack.enter_context(Attacker(small, address="1.1.1.1"))


def test_a_user_and_an_address_submit_so_often_in_a_minute(web: Web, small: str) -> None:
    """Submitting and cancelling at once, thousands a second, is within every limit of the queue."""
    with Attacker(small, address="1.1.1.1") as attacker, Attacker(small, address="1.1.1.1") as neighbour:
        for _ in range(5):
            rid = web.rid()
            assert attacker.ask(rid, "x", "narrow")["ok"] and attacker.call("cancel", {"id": rid})["ok"]
        rid = web.rid()
        error = attacker.ask(rid, "x", "narrow")["error"]
        assert error["code"] == "user_limit" and 0 < error["retry_after_s"] <= 60
        assert not web.system.redis.exists(web.system.keys.state(rid)), "a refusal leaves nothing"
        assert [neighbour.ask(web.rid(), "x")["ok"] for _ in range(3)] == [True, True, False]
        with Attacker(small, address="8.8.8.8") as stranger:
            assert stranger.ask(web.rid(), "x")["ok"]


def test_a_socket_that_never_joins_is_closed(web: Web) -> None:
    """Without a cookie it was told `forbidden`, and stayed for as long as it answered pings."""
    url, process = impatient(web)
    with tcp(url) as stranger, tcp(url) as silent, Attacker(url) as left, Attacker(url) as joined:
        stranger.sendall(upgrade(url, "") + frame("40"))
        silent.sendall(upgrade(url, joined.cookie))
        left.send("41")
        assert b'"forbidden"' in everything(stranger) and everything(silent) and left.ends()
        cookie = session_cookie(url)
        body = request(url, "GET", "/socket.io/?EIO=4&transport=polling", Cookie=cookie)[1]
        path = f"/socket.io/?EIO=4&transport=polling&sid={json.loads(body[1:])['sid']}"
        wait_until(lambda: request(url, "GET", path, Cookie=cookie)[0] == 400, "the end of the polling session")
        assert joined.call("cancel", {"id": "nothing"})["error"]["code"] == "gone"
    process.terminate()


def test_a_few_sockets_without_a_cookie_are_told_so_and_no_more(web: Web) -> None:
    url, process = impatient(web)
    with contextlib.ExitStack() as stack:
        for _ in range(3):
            stack.enter_context(tcp(url)).sendall(upgrade(url, ""))
        wait_until(lambda: exchange(url, upgrade(url, "")).startswith(b"HTTP/1.1 429 "), "the bound", 1)
        stack.enter_context(Attacker(url))
    process.terminate()


def test_one_websocket_at_a_time_takes_a_polling_session_over(web: Web) -> None:
    """Any number of upgrades of one session waited for their probe; none was counted as a socket."""
    cookie = session_cookie(web.url)
    sid = polling_session(web, cookie)
    query = f"EIO=4&transport=websocket&sid={sid}"
    with tcp(web.url) as first:
        first.sendall(upgrade(web.url, cookie, query))
        assert first.recv(4096).startswith(b"HTTP/1.1 101")
        assert exchange(web.url, upgrade(web.url, cookie, query)).startswith(b"HTTP/1.1 400")
        first.sendall(frame("2probe") + frame("5") + frame("40"))
        while b'40{"sid"' not in first.recv(4096):
            pass


def test_a_handshake_with_large_headers_is_refused(web: Web) -> None:
    """Socket.IO keeps them for as long as the socket lives."""
    cookie = f"{session_cookie(web.url)}; more={'x' * 20_000}"
    assert request(web.url, "GET", "/socket.io/?EIO=4&transport=polling", Cookie=cookie)[0] == 400
    assert exchange(web.url, upgrade(web.url, cookie)).startswith(b"HTTP/1.1 400")


def test_a_flood_of_namespaces_that_is_never_read_is_closed(web: Web) -> None:
    before = web.process.memory_info().rss
    with Attacker(web.url) as attacker:
        attacker.sock.settimeout(1)
        with contextlib.suppress(OSError):
            for _ in range(200):
                attacker.send("40/" + "n" * 400_000 + ",")
        assert attacker.is_cut_off()
    assert grown_mib(web, before) < 100


def test_one_socket_is_served_a_few_events_at_once(web: Web) -> None:
    """Each event in flight may hold one of the process's connections to Redis: one socket took them all."""

    fresh = web.system.web()  # with a pool of connections that has not grown yet
    name = f"-{web.system.processes[-1].pid}".encode()

    def connections() -> int:
        return sum(client["name"].encode().endswith(name) for client in web.system.redis.client_list())

    with Attacker(fresh) as attacker:
        assert attacker.call("cancel", {"id": "nothing"})["error"]["code"] == "gone"
        before = connections()
        web.system.redis.client_pause(500, all=True)
        numbers = [attacker.post("cancel", {"id": "nothing"}) for _ in range(500)]
        assert all(attacker.acknowledgement(number)["error"]["code"] == "gone" for number in numbers)
        assert 1 <= before <= connections() <= before + MAX_EVENTS
    web.system.processes[-1].terminate()


def test_a_socket_that_closes_while_its_event_is_served_leaves_no_watch(web: Web, eventually: Eventually) -> None:
    """The watch began after the socket was forgotten, and nobody ever ended it."""
    cookie, rids = session_cookie(web.url), [web.rid() for _ in range(8)]
    for rid in rids:
        with Attacker(web.url, cookie) as attacker:
            question = {"id": rid, "model": "narrow", "messages": [{"role": "user", "content": "x" * 1000}]}
            attacker.post("submit", question)
    state = web.system.keys.state
    eventually(lambda: all(web.system.redis.exists(state(rid)) for rid in rids), "the requests")
    eventually(lambda: not web.system.redis.pubsub_shardchannels("*:events"), "the end of the subscriptions")
    with Attacker(web.url, cookie) as owner:
        assert {owner.call("cancel", {"id": rid})["status"] for rid in rids} == {"cancelled"}


def test_messages_over_the_limit_are_refused_on_every_way_in(web: Web) -> None:
    long = "x" * (MAX_MESSAGE_BYTES + 1)
    with Attacker(web.url) as attacker:
        with contextlib.suppress(OSError):
            attacker.send('42["watch",{"id":"' + long + '"}]')
        assert attacker.ends()
    head = b"POST /api/session HTTP/1.1\r\nHost: localhost\r\n"
    size = b"%x\r\n" % len(long)
    for attack in (
        head + b"Content-Length: 99999999999\r\n\r\n",
        head + b"Transfer-Encoding: chunked\r\n\r\n" + size + long.encode() + b"\r\n0\r\n\r\n",
    ):
        answer = exchange(web.url, attack)
        assert b" 413 " in answer and b'"content_too_large"' in answer
    assert b" 431 " in exchange(web.url, b"GET / HTTP/1.1\r\n" + (b"A: " + b"b" * 2000 + b"\r\n") * 40 + b"\r\n")


def test_an_event_that_is_too_large_is_answered_and_its_socket_goes_on(web: Web) -> None:
    """The socket was closed without a word: a page connected again and sent the same bytes, for ever."""
    with Attacker(web.url) as attacker:
        answer = attacker.ask(web.rid(), "x" * 1_300_000)
        assert (answer["ok"], answer["error"]["code"]) == (False, "content_too_large")
        assert "1,300," in answer["error"]["message"] and f"{MAX_MESSAGE_BYTES:,}" in answer["error"]["message"]
        rid = web.rid()
        assert attacker.ask(rid, "and now?")["ok"] and attacker.answer(rid) == "and now?"


def test_a_size_is_counted_in_bytes_as_sent(web: Web) -> None:
    """150,000 Chinese characters that a client escapes are 900,000 bytes; unescaped they are half of that."""
    text = "\u6c49" * 150_000
    with Attacker(web.url) as attacker:
        assert attacker.ask(web.rid(), text)["error"]["code"] == "content_too_large"
        messages = [{"role": "user", "content": text}]
        attacker.send("4277" + json.dumps(["submit", {"id": "€", "messages": messages}], ensure_ascii=False))
        assert attacker.acknowledgement(77)["error"]["code"] == "invalid_request"
        attacker.send("4278" + json.dumps(["submit", {"id": "€", "messages": messages * 2}], ensure_ascii=False))
        assert attacker.acknowledgement(78)["error"]["code"] == "content_too_large"


def test_a_message_beyond_all_measure_ends_its_socket(web: Web) -> None:
    with Attacker(web.url) as attacker:
        with contextlib.suppress(OSError):
            attacker.send('421["watch",{"id":"' + "x" * 16 * MAX_MESSAGE_BYTES + '"}]')
        assert attacker.ends()


def impatient(web: Web) -> tuple[str, subprocess.Popen[bytes]]:
    """A web process with short times and small bounds."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    process = web.system.start("tests.webapp.server.impatient_web", port=port)
    wait_until(lambda: answers(f"{url}/healthz"), "the impatient web process", 60)
    return url, process


CHUNKED = b"POST /api/session HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("head", "data"),
    [
        (b"", b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n" * 100),
        (b"websocket", frame(b"", opcode=9) * 2000),
        (b"websocket", frame("40") * 2000),
        (CHUNKED, b"1;" + b"x" * 8000 + b"\r\nx\r\n"),
        (CHUNKED + b"0\r\n", (b"a: " + b"x" * 8000 + b"\r\n") * 10),
    ],
    ids=["requests", "pings", "packets", "extensions of chunks", "trailers"],
)
def test_a_client_that_sends_without_a_pause_leaves_turns_to_the_others(web: Web, head: bytes, data: bytes) -> None:
    """One connection froze a web process for as long as it liked: there was always something to read."""
    with flood(web.url, head.replace(b"websocket", upgrade(web.url, session_cookie(web.url))), data):
        assert all(healthy(web.url) for _ in range(5))


def test_half_requests_and_idle_connections_are_closed_in_time(web: Web) -> None:
    """A request without an end held its connection for ever; and there was no bound to the connections."""
    url, process = impatient(web)
    post = b"POST /api/session HTTP/1.1\r\nHost: localhost\r\n"
    halves = (
        b"",
        b"GET /api/ses",
        b"GET /api/session HTTP/1.1\r\nHost: localhost\r\nA",
        post + b"Content-Length: 9\r\n\r\nhalf",
    )
    halves = (*halves, post + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhal", post + b"Content-Length: 800000\r\n\r\n")
    socks = [tcp(url) for _ in range(4) for _ in halves]  # more than it takes at once
    for sock, half in zip(socks, halves * 4, strict=True):
        sock.sendall(half)
    for dribbler in socks[4:6]:
        with contextlib.suppress(OSError):
            for _ in range(20):
                dribbler.sendall(b"1")
                time.sleep(0.1)
    assert healthy(url)
    for sock in socks:
        assert everything(sock)[:12] in (b"", b"HTTP/1.1 408", b"HTTP/1.1 400")
        sock.close()
    assert b"Traceback" not in (web.system.folder / f"process-{web.system.processes.index(process)}.log").read_bytes()
    process.terminate()
    assert process.wait(10) == 0


# -- polling, sessions, origins --------------------------------------------------------------------------------------


def polling_session(web: Web, cookie: str) -> str:
    status, body = request(web.url, "GET", "/socket.io/?EIO=4&transport=polling", Cookie=cookie)
    assert status == 200
    return str(json.loads(body[1:])["sid"])


@pytest.mark.parametrize("theirs", ["", "another user's", "chatserver=forged"])
def test_a_session_id_opens_nothing_without_its_cookie(web: Web, theirs: str) -> None:
    """Engine.IO knows a polling client by its session id alone: whoever saw it could ask, read and upgrade."""
    owner = session_cookie(web.url)
    cookie = session_cookie(web.url) if theirs == "another user's" else theirs
    path = f"/socket.io/?EIO=4&transport=polling&sid={polling_session(web, owner)}"
    assert request(web.url, "POST", path, b"40", Cookie=cookie)[0] == 400
    assert request(web.url, "GET", path, Cookie=cookie)[0] == 400
    answer = exchange(web.url, upgrade(web.url, cookie, path.partition("?")[2].replace("polling", "websocket")))
    assert answer.startswith(b"HTTP/1.1 400")
    assert request(web.url, "POST", path, b"40", Cookie=owner) == (200, b"OK")


@pytest.mark.parametrize(
    "body",
    [
        b"\xff",
        b"",
        b"x",
        b"bZ",
        b"b" + base64.b64encode(b"x"),
        b"40\x1e",
        b"3\x1e" * 17 + b"3",
        b"4" + b"[" * 5000,
        b"d=40",
    ],
)
def test_a_payload_of_no_packets_is_refused(web: Web, body: bytes) -> None:
    cookie = session_cookie(web.url)
    path = f"/socket.io/?EIO=4&transport=polling&sid={polling_session(web, cookie)}"
    status, answer = request(web.url, "POST", path, body, Cookie=cookie)
    assert status == 400 and json.loads(answer)["error"]["code"] == "bad_request"
    assert request(web.url, "POST", path, b"40", Cookie=cookie) == (200, b"OK")


def test_a_polling_client_that_never_polls_is_closed(web: Web) -> None:
    cookie = session_cookie(web.url)
    path = f"/socket.io/?EIO=4&transport=polling&sid={polling_session(web, cookie)}"
    flood = b"40/" + b"n" * 800_000
    statuses = [request(web.url, "POST", path, flood, Cookie=cookie)[0] for _ in range(14)]
    assert statuses[0] == 200 and statuses[4:] == [400] * 10, "2 MiB of replies wait for one socket at most"


@pytest.mark.parametrize(
    "query",
    [
        "EIO=4&transport=polling&j=0",
        "EIO=4&transport=websocket",
        "EIO=4&transport=polling&sid=x%0aTraceback",
        "sid=",
        "%00",
    ],
)
def test_a_query_that_no_client_sends_is_refused(web: Web, query: str) -> None:
    assert request(web.url, "GET", f"/socket.io/?{query}", Cookie=session_cookie(web.url))[0] == 400
    assert request(web.url, "GET", f"/socket.io/?{query}", Upgrade="websocket")[0] == 400


@pytest.mark.parametrize("early", [b"", frame("2probe"), frame("x"), frame("2probe") + frame("3"), b"\xff\xff"])
def test_an_upgrade_that_stops_half_way_leaves_the_polling_session(web: Web, early: bytes) -> None:
    cookie = session_cookie(web.url)
    sid = polling_session(web, cookie)
    exchange(web.url, upgrade(web.url, cookie, f"EIO=4&transport=websocket&sid={sid}") + early)
    path = f"/socket.io/?EIO=4&transport=polling&sid={sid}"
    assert request(web.url, "POST", path, b"40", Cookie=cookie) == (200, b"OK")


@pytest.mark.parametrize(
    ("origin", "proto", "allowed"),
    [
        (OTHER_ORIGIN, "", True),
        ("ours", "", True),
        ("ours over TLS", "https", True),
        ("ours over TLS", "https, http", True),
        ("ours over TLS", "", False),
        ("ours", "https", False),
        ("https://evil.example", "", False),
        ("https://pages.example.evil.example", "", False),
        ("null", "", False),
        ("*", "", False),
    ],
)
def test_a_foreign_page_opens_no_socket(web: Web, origin: str, proto: str, allowed: bool) -> None:
    cookie = session_cookie(web.url)
    known = {"ours": web.url, "ours over TLS": web.url.replace("http:", "https:")}
    headers = {"Origin": known.get(origin, origin), **({"X_Forwarded_Proto": proto} if proto else {})}
    status = request(web.url, "GET", "/socket.io/?EIO=4&transport=polling", Cookie=cookie, **headers)[0]
    assert status == (200 if allowed else 400)
    opening = upgrade(web.url, cookie, origin=headers["Origin"])
    if proto:
        opening = opening.replace(b"\r\n", f"\r\nX-Forwarded-Proto: {proto}\r\n".encode(), 1)
    assert exchange(web.url, opening).startswith(b"HTTP/1.1 101" if allowed else b"HTTP/1.1 400")
    assert ".example" not in web.log.read_text(), "what a stranger's page calls itself"


# -- HTTP ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/api/nothing", 404, "not_found"),
        ("POST", "/api/session", 405, "method_not_allowed"),
        ("BREW", "/api/models", 405, "method_not_allowed"),
        ("GET", "/api/%ff%00", 404, "not_found"),
    ],
)
def test_what_http_refuses_has_the_shape_of_our_errors(
    web: Web, method: str, path: str, status: int, code: str
) -> None:
    got, body = request(web.url, method, path)
    assert got == status and json.loads(body)["error"]["code"] == code


@pytest.mark.parametrize(
    "cookie",
    [
        "",
        "chatserver=",
        "chatserver=eyJ1c2VyIjoiYW5vbi0xIn0.aaaaaa.AAAA",
        "chatserver=" + "A" * 30_000,
        ';;=;"\\777',
        "a=b;" * 7500,
    ],
)
def test_a_cookie_that_we_did_not_sign_is_nobody(web: Web, cookie: str) -> None:
    status, body = request(web.url, "GET", "/api/session", Cookie=cookie)
    assert status == 200 and json.loads(body)["user"].startswith("anon-") and json.loads(body)["user"] != "anon-1"


def test_no_path_leads_out_of_the_static_folder(web: Web) -> None:
    for path in (
        "../pages.py",
        "..%2fpages.py",
        "%2e%2e/pages.py",
        "..\\pages.py",
        "/etc/passwd",
        "%00",
        "a" * 4000,
        "....//pages.py",
    ):
        status, body = request(web.url, "GET", f"/static/{path}")
        assert status in (404, 308, 400) and b"import" not in body and b"root:" not in body


@pytest.mark.parametrize(
    "framing",
    [
        "Content-Length: 1\r\nContent-Length: 2",
        "Content-Length: +5",
        "Content-Length: -1",
        "Content-Length: 1_0",
        "Content-Length: x",
        "Transfer-Encoding: xchunked",
        "Transfer-Encoding: gzip, chunked",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
    ],
)
def test_a_body_that_two_servers_may_read_differently_is_refused(web: Web, framing: str) -> None:
    answer = exchange(web.url, f"POST /api/session HTTP/1.1\r\nHost: localhost\r\n{framing}\r\n\r\n12345".encode())
    assert answer.startswith(b"HTTP/1.1 400") and answer.count(b"HTTP/1.1 ") == 1


def mutated(generator: random.Random, data: bytes) -> bytes:
    """The same with a few bytes changed, cut out, doubled or added."""
    changed = bytearray(data)
    for _ in range(generator.randint(1, 4)):
        at = generator.randrange(len(changed) + 1)
        some = generator.choice([generator.randbytes(3), b"\0", b"\r\n", b"\xff", b":", b" ", b"%", b"9" * 30])
        changed[at : at + generator.choice([0, 1, 1, 5])] = some * generator.choice([0, 1, 1, 50])
    return bytes(changed[: generator.randint(1, len(changed) + 50)])


def test_mutated_requests_get_an_answer_of_http_or_none(web: Web) -> None:
    generator = random.Random(7)
    cookie = session_cookie(web.url)
    sid = polling_session(web, cookie)
    head = f"Host: localhost\r\nCookie: {cookie}\r\nAccept: */*\r\n".encode()
    seeds = [
        b"GET /api/session HTTP/1.1\r\n" + head + b"\r\n",
        f"POST /socket.io/?EIO=4&transport=polling&sid={sid} HTTP/1.1\r\n".encode()
        + head
        + b"Content-Length: 2\r\n\r\n40",
        b"POST /api/models HTTP/1.1\r\n" + head + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        upgrade(web.url, cookie) + frame("40") + frame('421["watch",{"id":"x"}]'),
    ]
    for _ in range(300):
        answer = exchange(web.url, mutated(generator, generator.choice(seeds)))
        assert answer[:7] in (b"", b"HTTP/1.") and b"Traceback" not in answer


def test_mutated_frames_end_their_socket_or_are_nothing(web: Web) -> None:
    generator = random.Random(11)
    cookie = session_cookie(web.url)
    parts = [frame("40"), frame('421["watch",{"id":"x"}]'), frame("3"), frame(b"ping", opcode=9), frame(b"", opcode=8)]
    parts += [frame('42["', final=False), frame('x"]', opcode=0), frame(b"\0\1", opcode=2), frame("2" * 70_000)]
    for _ in range(150):
        attack = b"".join(generator.choices(parts, k=generator.randint(1, 6)))
        answer = exchange(web.url, upgrade(web.url, cookie) + mutated(generator, attack))
        assert answer.startswith(b"HTTP/1.1 101") and b"Traceback" not in answer


# -- owners ----------------------------------------------------------------------------------------------------------


def test_nobody_but_its_owner_reaches_a_request_in_any_state(web: Web) -> None:
    """Every event on a queued, a running and an ended request of another user; the owner sees nothing of it."""
    text = "an answer of some length, " * 8
    question = {"model": "narrow", "messages": [{"role": "user", "content": "mine"}]}
    refused = {"submit": "conflict", "watch": "forbidden", "cancel": "forbidden", "unwatch": "", "received": ""}
    with Attacker(web.url) as owner, Attacker(web.url) as intruder:
        ended, running, queued = web.rid(), web.rid(), web.rid()
        owner.ask(ended, "short", "narrow")
        assert owner.answer(ended) == "short"
        owner.ask(running, text, "narrow")
        owner.read_until(lambda: any(name == "tokens" and event["id"] == running for name, event in owner.events))
        owner.ask(queued, "later", "narrow")
        for rid in (queued, running, ended):
            for event, code in refused.items():
                payload = {"id": rid, **question} if event == "submit" else {"id": rid}
                answer = intruder.call(event, {**payload, **({"offset": 3} if event == "received" else {})})
                assert answer.get("error", {"code": ""})["code"] == code, (event, rid, answer)
        status = web.system.redis.hget(web.system.keys.state(queued), "status")
        assert status == b"new", "the table must be through while one is still queued"
        assert owner.answer(running) == text and owner.answer(queued) == "later"
        assert intruder.events == []


def test_who_watches_an_id_before_its_owner_submits_it_gets_nothing_and_hinders_nobody(web: Web) -> None:
    with Attacker(web.url) as owner, Attacker(web.url) as intruder:
        rid = web.rid()
        assert intruder.call("watch", {"id": rid, "offset": 0, "nonce": ""}) == {"ok": True}
        assert owner.ask(rid, "mine alone", "fast") == {"ok": True, "id": rid}
        assert owner.answer(rid) == "mine alone"
        assert all(name == "done" and event["code"] == "forbidden" for name, event in intruder.events)


def test_without_a_cookie_no_socket_connects(web: Web) -> None:
    sock = tcp(web.url)
    sock.sendall(upgrade(web.url, "chatserver=forged") + frame("40") + frame('421["cancel",{"id":"x"}]') + frame("1"))
    answer = everything(sock)
    sock.close()
    assert b'"code":"forbidden"' in answer and b'"ok"' not in answer


def test_a_reset_in_the_middle_of_anything_is_nothing(web: Web) -> None:
    for data in (
        b"",
        b"GET",
        upgrade(web.url, session_cookie(web.url)),
        b"POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\nab",
    ):
        sock = tcp(web.url)
        sock.sendall(data)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        sock.close()
