"""What every server is asked, one function for each kind of load. `__main__.py` makes them into rounds.

A scenario is made once for a round: its prompts are the same for all servers of the round, and no later round has them.
Tokens are counted in the text that arrived, by one tokenizer for all.
"""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import psutil

from bench.peers.client import Message, Reply, ask
from bench.peers.figures import Turn
from bench.peers.machine import Meter
from bench.peers.prompts import Prompts

LONG_TOKENS = 1500
STREAMS_BESIDE = 8
ENOUGH_REQUESTS = 4  # of one round, where there are fewer clients

Count = Callable[[str], int]
Ask = Callable[[list[Message], int], Reply]


@dataclass(frozen=True)
class Target:
    """A server that runs."""

    name: str
    url: str
    model: str  # as the server calls it
    processes: Sequence[psutil.Process]  # the roots of its trees

    def ask(self, messages: list[Message], tokens: int) -> Reply:
        return ask(self.url, self.model, messages, tokens)


@dataclass(frozen=True)
class Scenario:
    """`load` asks everything and gives the replies whose first token counts, and all replies."""

    name: str
    load: Callable[[Ask], tuple[list[Reply], list[Reply]]]

    def turn(self, target: Target, count: Count) -> Turn:
        began_at = time.monotonic()
        with Meter(target.processes) as meter:
            watched, replies = self.load(target.ask)
            ended_at = time.monotonic()
        good = [reply for reply in replies if not reply.error]
        return Turn(
            target.name,
            tokens=sum(count(reply.text) for reply in good),
            elapsed_s=ended_at - began_at,
            first_ms=[reply.first_ms for reply in watched if not reply.error],
            gaps_ms=[gap for reply in good for gap in reply.gaps_ms],
            errors=[reply.error for reply in replies if reply.error],
            peak_mib=meter.peak_mib,
            cpu_s=meter.cpu_s,
            others=meter.others,
        )


def chat(clients: int, requests: int, tokens: int, prompts: Prompts) -> Scenario:
    """Each of `clients` asks its next question when its last one is answered."""
    num_questions = max(clients * requests, ENOUGH_REQUESTS)
    return Scenario(
        f"chat, c={clients}", partial(_closed_loop, clients, _questions(prompts.chat, num_questions), tokens)
    )


def long(clients: int, tokens: int, prompts: Prompts, count: Count) -> Scenario:
    """Prompts that are long enough for their reading to count."""
    texts = _questions(lambda: prompts.long(LONG_TOKENS, count), max(clients, 2))
    return Scenario(f"{LONG_TOKENS}-token prompts, c={clients}", partial(_closed_loop, clients, texts, tokens))


def conversation(turns: int, tokens: int, prompts: Prompts) -> Scenario:
    """Each question goes with all that was said before: what is kept of a prompt pays here."""
    return Scenario(
        f"conversation of {turns}", partial(_conversation, [prompts.follow_up() for _ in range(turns)], tokens)
    )


def beside(tokens: int, prompts: Prompts, count: Count) -> Scenario:
    """A long prompt comes while others read: its first token, and how long the others wait for their next one."""
    texts = _questions(prompts.chat, STREAMS_BESIDE + 1)  # one of them is short and says when
    long_text = _question(prompts.long(LONG_TOKENS, count))
    return Scenario(f"a long prompt beside {STREAMS_BESIDE}", partial(_beside, texts, long_text, tokens))


def _question(text: str) -> list[Message]:
    return [{"role": "user", "content": text}]


def _questions(make: Callable[[], str], number: int) -> list[list[Message]]:
    return [_question(make()) for _ in range(number)]


def _closed_loop(
    clients: int, questions: Sequence[list[Message]], tokens: int, ask: Ask
) -> tuple[list[Reply], list[Reply]]:
    waiting, replies = list(questions), []

    def client() -> None:
        while True:
            try:
                question = waiting.pop()
            except IndexError:
                return
            replies.append(ask(question, tokens))

    in_threads([client] * min(clients, len(questions)))
    return replies, replies


def _conversation(questions: Sequence[str], tokens: int, ask: Ask) -> tuple[list[Reply], list[Reply]]:
    said: list[Message] = []
    replies = []
    for question in questions:
        said += _question(question)
        replies.append(ask(said, tokens))
        if replies[-1].error:
            break
        said.append({"role": "assistant", "content": replies[-1].text})
    return replies, replies


def _beside(
    questions: Sequence[list[Message]], long_question: list[Message], tokens: int, ask: Ask
) -> tuple[list[Reply], list[Reply]]:
    """The long prompt is sent once one of the short questions is answered: then all the others are being answered."""
    replies: list[Reply] = []
    late: list[Reply] = []
    one_is_over = threading.Event()

    def stream(question: list[Message]) -> None:
        try:
            replies.append(ask(question, tokens // 2 if question is questions[0] else tokens))
        finally:
            one_is_over.set()

    def come_late() -> None:
        one_is_over.wait()
        late.append(ask(long_question, tokens))

    in_threads([*(partial(stream, question) for question in questions), come_late])
    return late, [*replies, *late]


def in_threads(functions: Sequence[Callable[[], None]]) -> None:
    """All at once, until all have ended. The threads end with the program: Ctrl-C waits for none of them.

    Raises RuntimeError if one raised; Python has printed its traceback by then.
    """
    ended: list[Callable[[], None]] = []

    def run(function: Callable[[], None]) -> None:
        function()
        ended.append(function)

    threads = [threading.Thread(target=run, args=[function], daemon=True) for function in functions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if len(ended) != len(functions):
        raise RuntimeError("a client ended before its questions did; its traceback stands above")
