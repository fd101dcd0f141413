"""A conversation that the server keeps, through the real path: `ask`, the journal, the archive, HTTP."""

from typing import Any

import pytest
import requests

from tests.end_to_end.system import Browser, wait_until


class Visitor:
    """A browser with the page's HTTP calls beside its socket."""

    def __init__(self, url: str) -> None:
        self.socket = Browser(url)
        self._url = url

    def get(self, path: str) -> Any:
        answer = requests.get(f"{self._url}{path}", headers={"Cookie": self.socket.cookie}, timeout=10)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def ask(self, rid: str, content: str, **more: Any) -> Any:
        question = {"id": f"q-{rid}", "content": content}
        payload = {"conversation": "c", "id": rid, "parent": None, "question": question, "model": "echo", **more}
        return self.socket.call("ask", payload)

    def archived(self, rid: str) -> dict[str, Any]:
        """The answer's message once it is archived; nobody has to read it."""

        def found() -> dict[str, Any] | None:
            messages = self.get("/api/conversations/c")["messages"]
            return next((m for m in messages if m["id"] == rid and m["state"] not in ("open", "unsent")), None)

        return dict(wait_until(found, f"the archive of {rid}", 30))


@pytest.fixture(scope="module")
def visitor(chat_url: str) -> Visitor:
    return Visitor(chat_url)


def test_an_ask_is_answered_archived_and_found(visitor: Visitor) -> None:
    assert visitor.ask("a1", "the sea is 深い") == {"ok": True, "id": "a1", "omitted": 0}
    assert visitor.ask("a1", "the sea is 深い")["ok"], "sent again after a lost acknowledgement"
    visitor.socket.wait_for_done("a1")
    answer = visitor.archived("a1")
    assert (answer["content"], answer["state"], answer["code"]) == ("the sea is 深い", "finished", "stop")
    hits = visitor.get("/api/search?q=深い")["results"]
    assert {hit["message_id"] for hit in hits if hit["role"] != "title"} == {"a1", "q-a1"}


def test_another_version_and_a_longer_one_leave_the_first_as_it_is(visitor: Visitor) -> None:
    visitor.archived("a1")
    assert visitor.ask("a2", "", question=None, parent="q-a1")["ok"]
    assert visitor.archived("a2")["content"] == "the sea is 深い"
    assert visitor.ask("a3", "and now?", parent="a2", sampling={"max_new_tokens": 4})["ok"]
    cut = visitor.archived("a3")
    assert (cut["content"], cut["code"]) == ("and ", "length")
    assert visitor.ask("a4", "", question=None, parent="q-a3", continues="a3")["ok"]
    longer = visitor.archived("a4")
    assert longer["content"].startswith("and ") and len(longer["content"]) > 4
    assert visitor.archived("a3")["content"] == "and "


def test_what_is_wrong_with_an_ask_is_told_and_leaves_nothing(visitor: Visitor) -> None:
    before = len(visitor.get("/api/conversations/c")["messages"])
    assert visitor.ask("a9", " ")["error"]["code"] == "invalid_request"
    assert visitor.ask("a9", "x", parent="nowhere")["error"]["code"] == "not_found"
    assert visitor.ask("a1", "another question")["error"]["code"] == "conflict"
    assert len(visitor.get("/api/conversations/c")["messages"]) == before


def test_a_model_that_nobody_serves_leaves_the_answer_unsent(visitor: Visitor) -> None:
    refused = visitor.ask("a5", "later", parent="a2", model="nobody")
    assert refused["error"]["code"] == "unknown_model"
    kept = {m["id"]: m for m in visitor.get("/api/conversations/c")["messages"]}["a5"]
    assert (kept["state"], kept["code"]) == ("unsent", "unknown_model")
