"""Which questions are asked, how many at once, in what order, and which first tokens count."""

import threading
import time
from collections.abc import Callable

import psutil
import pytest

from bench.peers.__main__ import one_round
from bench.peers.client import Message, Reply
from bench.peers.prompts import Prompts
from bench.peers.scenarios import Scenario, beside, chat, conversation, in_threads, long

TOKENS = 8


def words(text: str) -> int:
    return len(text.split())


class Listener:
    """Answers at once and notes what was asked."""

    def __init__(self, *, meanwhile: Callable[[], object] = lambda: None, error: str = "") -> None:
        self.asked: list[list[Message]] = []
        self.limits: list[int] = []
        self._meanwhile, self._error = meanwhile, error

    def ask(self, messages: list[Message], tokens: int) -> Reply:
        self.asked.append(list(messages))
        self.limits.append(tokens)
        self._meanwhile()
        now = time.monotonic()
        return Reply(now, ["some ", "words"], [now, now], now, self._error)


def test_each_question_of_a_chat_is_asked_once() -> None:
    listener = Listener()
    watched, replies = chat(3, 2, TOKENS, Prompts(1)).load(listener.ask)
    assert len({question[0]["content"] for question in listener.asked}) == len(listener.asked) == len(replies) == 6
    assert watched is replies


def test_all_clients_of_a_chat_ask_at_once() -> None:
    together = threading.Barrier(4, timeout=30)  # breaks unless four ask at the same time
    chat(4, 2, TOKENS, Prompts(1)).load(Listener(meanwhile=together.wait).ask)


def test_a_conversation_grows_by_what_was_answered() -> None:
    listener = Listener()
    conversation(3, TOKENS, Prompts(1)).load(listener.ask)
    assert [len(messages) for messages in listener.asked] == [1, 3, 5]
    assert listener.asked[2][:3] == [*listener.asked[1]]
    assert listener.asked[1][1] == {"role": "assistant", "content": "some words"}


def test_a_conversation_ends_with_its_first_error() -> None:
    listener = Listener(error="refused")
    _, replies = conversation(3, TOKENS, Prompts(1)).load(listener.ask)
    assert [reply.error for reply in replies] == ["refused"]


def test_a_long_prompt_comes_once_a_short_answer_has_ended() -> None:
    listener = Listener()
    watched, replies = beside(TOKENS, Prompts(1), words).load(listener.ask)
    assert [words(question[0]["content"]) >= 1500 for question in listener.asked].count(True) == 1
    assert words(listener.asked[0][0]["content"]) < 1500
    assert len(watched) == 1 and len(replies) == 10
    assert sorted(listener.limits)[0] == TOKENS // 2


def test_a_long_prompt_is_long() -> None:
    listener = Listener()
    long(1, TOKENS, Prompts(1), words).load(listener.ask)
    assert all(words(question[0]["content"]) >= 1500 for question in listener.asked)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_an_error_of_our_own_in_a_thread_is_not_lost() -> None:
    with pytest.raises(RuntimeError, match="ended before"):
        in_threads([lambda: None, lambda: print(1 / 0)])


class Asked:
    """A target that answers in this process."""

    def __init__(self, name: str, log: list[str], error: str = "") -> None:
        self.name, self._log, self._listener = name, log, Listener(error=error)
        self.processes = [psutil.Process()]

    def ask(self, messages: list[Message], tokens: int) -> Reply:
        self._log.append(f"{self.name}: {messages[0]['content']}")
        return self._listener.ask(messages, tokens)


def rounds_of(scenario: Scenario, *targets: Asked) -> list[str]:
    return [turn.server for turn in one_round(scenario, targets, words).turns]  # type: ignore[arg-type]


def test_in_a_round_servers_take_turns_with_the_same_prompts() -> None:
    log: list[str] = []
    scenario = chat(1, 1, TOKENS, Prompts(1))
    assert rounds_of(scenario, Asked("a", log), Asked("b", log)) == ["a", "b"]
    first, second = log[:4], log[4:]
    assert [line.removeprefix("a: ") for line in first] == [line.removeprefix("b: ") for line in second]


def test_an_answer_that_failed_counts_as_an_error_and_not_as_tokens() -> None:
    scenario = chat(1, 1, TOKENS, Prompts(1))
    good = scenario.turn(Asked("a", []), words)  # type: ignore[arg-type]
    bad = scenario.turn(Asked("a", [], error="refused"), words)  # type: ignore[arg-type]
    assert (good.tokens, len(good.first_ms), good.errors) == (8, 4, [])
    assert (bad.tokens, bad.first_ms, bad.errors) == (0, [], ["refused"] * 4)
