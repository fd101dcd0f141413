"""A title by the conversation's own model, where its owner asks for one. The routes of conversations call it.

The request has the priority `batch`, so that it delays no answer. Its answer is begun with a word: so a reasoning model
does not think first, and a small one says a title and not something about it.
"""

import re
import secrets
import threading
import time
from typing import Any

from services.chat.feed import AnswerFeed
from services.chat.reader import Done, Rewind, Text
from services.chat.requests import Requests
from services.chat.said import Said
from services.connection.connect import translated
from services.conversations.conversations import Conversations
from services.conversations.edits import MAX_TITLE_CHARS
from services.conversations.shapes import Tree
from services.conversations.tables import MessageRow
from services.database.calls import Run, at_once
from services.errors import Conflict, Unavailable
from services.wire.messages import ChatRequest
from services.wire.parsing import parse_request

LONGEST_S = 60.0
READ_CHARS = 2_000  # of the question and of its answer
BEGUN = "Title:"
WISH = "Write a title of three to six words for this conversation, in its language. Write nothing else.\n\n"
SAMPLING = {"max_new_tokens": 24, "temperature": 0, "stop": ["\n"]}


class Titler:
    """`run` calls what uses the database; the web process gives a function that does so in a thread."""

    def __init__(
        self, conversations: Conversations, requests: Requests, feed: AnswerFeed, run: Run = at_once, *, max_chars: int
    ) -> None:
        self._conversations = conversations
        self._requests = requests
        self._feed = feed
        self._run = run
        self._max_chars = max_chars

    def title(self, owner: str, cid: str, address: str = "") -> dict[str, Any]:
        """The summary of the conversation with its new title, once the model has written one.

        Raises NotFound, what `Requests.submit` raises, Conflict for a conversation without an answer or a model that
        wrote nothing, and Unavailable after a minute.
        """
        tree: Tree = self._run(self._conversations.find, owner, cid)
        before, request = tree.conversation.title, self._request(owner, tree)
        with translated():
            self._requests.submit(request, address)
        title = title_of(self._written(request))
        if not title:
            raise Conflict(f"{request.model} wrote no title; name the conversation yourself")
        named: dict[str, Any] = self._run(self._conversations.name, owner, cid, title, before)
        return named

    def _request(self, owner: str, tree: Tree) -> ChatRequest:
        branch = tree.branch()
        question, answer = (_first(branch, role) for role in ("user", "assistant"))
        if not answer:
            raise Conflict("the conversation has no answer yet; ask for a title when it has one")
        said = f"Question: {question}\n\nAnswer: {answer}"
        messages = [{"role": "user", "content": WISH + said}, {"role": "assistant", "content": BEGUN}]
        raw = {"id": f"title-{secrets.token_hex(12)}", "model": tree.conversation.model, "messages": messages}
        more = {"sampling": SAMPLING, "continue_final": True, "priority": "batch"}
        return parse_request({**raw, **more}, user=owner, max_chars=self._max_chars)

    def _written(self, request: ChatRequest) -> str:
        changed, said = threading.Event(), Said()
        with translated():
            follower = self._feed.follow(request.rid, request.user, changed.set, request=request)
        ends_at = time.monotonic() + LONGEST_S
        try:
            while changed.wait(max(ends_at - time.monotonic(), 0.0)):
                changed.clear()
                while (event := follower.next()) is not None:
                    if isinstance(event, Text):
                        said.take(event)
                    elif isinstance(event, Rewind):
                        said.rewind(event.offset)
                    elif isinstance(event, Done):
                        return _ended(event, said.answer)
            with translated():
                self._requests.cancel(request.rid, request.user)
            raise Unavailable(f"{request.model} wrote no title within {LONGEST_S:.0f} s; try again when it has time")
        finally:
            self._feed.leave(follower)


def title_of(written: str) -> str:
    """The first line without the quotation marks and marks of Markdown around it, cut to a title's length."""
    line = written.strip().partition("\n")[0]
    return re.sub(r"\s+", " ", line).strip(" \"'`*#_“”„«»「」.")[:MAX_TITLE_CHARS].strip()


def _first(branch: list[MessageRow], role: str) -> str:
    return next((each.content[:READ_CHARS] for each in branch if each.role == role and each.content), "")


def _ended(done: Done, text: str) -> str:
    if done.status != "finished":
        raise Unavailable(f"no title came: {done.message or done.code or done.status}")
    return text
