"""Assistant turns that are messages of the service instead of answers, such as `Too many requests in 1 hour`.

A message is recognized by its beginning, and only when the turn is no longer than such messages are. Beginnings that an
answer might share ("An error occurred because …") must also end like a message: there, or with the usual advice.
"""

import re
from collections.abc import Callable, Iterable, Iterator

from pipelines.conversation import Conversation
from pipelines.ledger import Ledger
from pipelines.steps import Step
from services.recipe import ErrorMessagesOptions

MAX_MESSAGE_CHARS = 320

MESSAGES = (
    "Too many requests in 1 hour",
    "Too many concurrent requests",
    "Hmm...something seems to have gone wrong",
    "Our systems are a bit busy",
    "Our systems are experiencing",
    "We're experiencing exceptionally high demand",
    "The server had an error while processing your request",
    "The server is overloaded",
    "The server experienced an error",
    "That model is currently overloaded",
    "You've reached the current usage cap",
    "You've reached our limit of messages",
    "Only one message at a time",
    "The message you submitted was too long",
    "Error in message stream",
    "Error in body stream",
    "Error in input stream",
    "There was an error generating a response",
    "NETWORK ERROR DUE TO HIGH TRAFFIC",
    "Unable to load conversation",
    "Failed to get response. Please try again",
)
AMBIGUOUS = (
    "An error occurred",
    "An unexpected error occurred",
    "An error occurred while processing your request",
    "Something went wrong",
    "Oops, something went wrong",
    "Oops! Something went wrong",
    "Network error",
    "A network error occurred",
    "Internal server error",
    "Service unavailable",
    "Service temporarily unavailable",
    "Too many requests",
    "Rate limit exceeded",
    "Rate limit reached",
    "Request timed out",
    "The request timed out",
    "Gateway timeout",
    "Bad gateway",
    "Failed to fetch",
    "Conversation not found",
    "Load failed",
)
_ORNAMENT = r"[\s!*_>⚠\ufe0f\"“(\[]*"
_ADVICE = "please|if this|if the (?:issue|problem)|either the engine|try again|you can (?:retry|try)|sorry|contact"
_ENDING = rf"[\s.!…,;*_\"”)\]-]*(?:\Z|(?:{_ADVICE})\b)"


def build(options: ErrorMessagesOptions) -> Step:
    find = _finder(options.starts)

    def step(conversations: Iterable[Conversation], ledger: Ledger) -> Iterator[Conversation]:
        for conversation in conversations:
            message, start = _first(conversation, find)
            rest = conversation.turns[:start]
            if not message:
                yield conversation
            elif options.then == "reject" or not any(turn.role == "assistant" for turn in rest):
                ledger.reject(conversation, "error_message", message)
            else:
                ledger.cut(conversation, range(start, len(conversation.turns)), "error_message", message)
                yield conversation.with_turns(rest)

    return step


def _first(conversation: Conversation, find: Callable[[str], str]) -> tuple[str, int]:
    """The first message, and the index where its pair begins."""
    for index, turn in enumerate(conversation.turns):
        if turn.role == "assistant" and (message := find(turn.text)):
            while index and conversation.turns[index - 1].role == "user":
                index -= 1
            return message, index
    return "", len(conversation.turns)


def _finder(starts: tuple[str, ...]) -> Callable[[str], str]:
    """Text → the beginning by which it is a message, or "" ."""
    certain = _any_of((*MESSAGES, *starts))
    pattern = re.compile(rf"{_ORNAMENT}(?:({certain})|({_any_of(AMBIGUOUS)}){_ENDING})", re.IGNORECASE)

    def find(text: str) -> str:
        text = text.strip() if len(text) < 2 * MAX_MESSAGE_CHARS else text
        match = pattern.match(text) if len(text) <= MAX_MESSAGE_CHARS else None
        return (match[1] or match[2]) if match else ""

    return find


def _any_of(starts: tuple[str, ...]) -> str:
    longest_first = sorted((start.strip() for start in starts if start.strip()), key=len, reverse=True)
    return "|".join(re.escape(start).replace("'", "['’]") for start in longest_first)
