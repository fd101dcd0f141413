"""A stream is read as its bytes come, and whatever is not a whole answer is an error."""

import socket
import threading
from collections.abc import Iterable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from bench.peers.client import StreamError, ask, pieces

ASKED = [{"role": "user", "content": "Hello."}]


def frame(text: str) -> bytes:
    return b'data: {"choices": [{"delta": {"content": "%s"}}]}\n' % text.encode()


END = b'data: {"choices": [{"delta": {}, "finish_reason": "length"}]}\n'
DONE = b"data: [DONE]\n"


def read(*lines: bytes) -> str:
    return "".join(pieces(lines))


def test_text_comes_in_order_and_what_is_no_text_is_passed_over() -> None:
    role = b'data: {"choices": [{"delta": {"role": "assistant", "content": null}}]}\n'
    usage = b'data: {"choices": [], "usage": {"completion_tokens": 2}}\n'
    assert read(b": keep\n", b"event: x\n", role, frame("a"), b"\n", frame("b"), END, usage, DONE) == "ab"


def test_a_space_after_the_colon_and_the_carriage_return_are_the_servers_choice() -> None:
    assert read(b'data:{"choices":[{"delta":{"content":"a"}}]}\r\n', b"data:[DONE]\r\n") == "a"


def test_an_answer_that_said_its_end_needs_no_done() -> None:
    assert read(frame("a"), END) == "a"


@pytest.mark.parametrize("last", [b"", b'data: {"error": {"message": "overloaded"}}\n', b"data: {half\n"])
def test_a_stream_that_breaks_off_or_tells_an_error_is_no_answer(last: bytes) -> None:
    with pytest.raises(StreamError):
        read(frame("a"), last)


def test_fastchats_errors_are_errors_though_they_have_no_error_field() -> None:
    with pytest.raises(StreamError, match="busy"):
        read(b'data: {"text": "busy", "error_code": 50001}\n')


def serve(status: int, chunks: Iterable[bytes]) -> ThreadingHTTPServer:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(status)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for chunk in (*chunks, b""):
                self.wfile.write(b"%x\r\n%s\r\n" % (len(chunk), chunk))
                self.wfile.flush()

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever).start()
    return server


def answer_of(status: int, chunks: Iterable[bytes]) -> tuple[str, list[float], str]:
    server = serve(status, chunks)
    try:
        reply = ask(f"http://127.0.0.1:{server.server_port}", "m", ASKED, 8)
    finally:
        server.shutdown()
        server.server_close()
    assert len(reply.gaps_ms) == max(0, len(reply.pieces) - 1)
    return reply.text, reply.arrivals, reply.error


def test_a_chunk_may_end_within_a_line_and_hold_several() -> None:
    whole = frame("one ") + frame("two") + END + DONE
    text, arrivals, error = answer_of(200, [whole[:17], whole[17:60], whole[60:]])
    assert (text, len(arrivals), error) == ("one two", 2, "")


def test_another_status_is_an_error_that_quotes_the_server() -> None:
    _, _, error = answer_of(503, [b'{"error": "loading model"}'])
    assert "503" in error and "loading model" in error


def test_an_answer_without_text_is_an_error() -> None:
    assert "empty" in answer_of(200, [END + DONE])[2]


def test_a_server_that_is_not_there_is_an_error() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and does not listen
        reply = ask(f"http://127.0.0.1:{taken.getsockname()[1]}", "m", ASKED, 8)
    assert "refused" in reply.error and not reply.pieces
