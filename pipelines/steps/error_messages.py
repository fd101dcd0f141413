"""Finds assistant turns that are a service's error message instead of an answer, such as `Too many requests in 1 hour`.

An error message is short, begins with a known text, and otherwise holds only the advice that services give: "The server
is overloaded when …" and "An error occurred. Here is the corrected function:" are answers. For a beginning that the
recipe adds, the beginning alone decides. A bare `Bad Gateway` is an answer if the question is about errors. An answer
behind whose last paragraph such a message stands is not whole.
"""

import re
from collections.abc import Callable, Iterable, Iterator

from pipelines.records.conversation import Conversation
from pipelines.records.ledger import Ledger
from pipelines.steps import Step
from services.jobs.steps.error_messages import ErrorMessagesOptions

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
_TRY = r"(?:re-?try|try (?:me )?(?:again|later|re\w+ing|your)|re-?(?:load|fresh|generate|send|submit)|wait|come back)"
_ADVICE = rf"""(?:
    (?:(?:please|maybe|you\ can|you\ may|you\ could|just|and|so)[ ,]+)*{_TRY.replace(" ", "[ ]")}
  | please\ (?:contact|hang|allow|check\ back|take|include|stand\ by|bear|be\ patient|submit|start|do\ not|don['’]t)
  | if\ (?:this|the|it)\b.{{0,40}}\b(?:persist|continue|keep)s?\b
  | either\ the\ engine | contact\ (?:us|support|our) | (?:we['’]re\ |we\ are\ |i['’]m\ )?(?:so\ |very\ )?sorry
  | we\ apologi[sz]e | apologies | we(?:['’]re|\ are)\ (?:working|aware|experiencing)
)\b"""
_GOES_ON = r"""(?:\ (?:
    at\ the\ moment | right\ now | currently | per\ hour | for\ (?:gpt|this|your|today)[\w.-]*(?:\ \w+)?
  | (?:in|every)\ \d+\ hours? | (?=[\w-]*\d)[\w-]{6,64}
  | (?:with|by)\ (?:too\ many\ |other\ )*requests | or\ not\ ready\ yet | (?:while|when)\ processing\ your\ request
  | (?:an?\ )?(?:exceptionally\ |unusually\ |very\ )*(?:high|heavy)\ (?:demand|traffic|load|volume)(?:\ of\ requests)?
))*"""
_MARKS = r"""[\s.!…,;:*_"”)\]–—-]*"""
_SENTENCE_END = re.compile(r"(?<=[.!?…*])\s+|\n+")
_IS_ANSWER = re.compile(r"`|:\s*\Z|\b(?:below|following)\b", re.IGNORECASE)
_ABOUT_ERRORS = re.compile(r"\b(?:https?|status|errors?|codes?|gateway|time-?out|[45]\d\d)\b", re.IGNORECASE)


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


def _first(conversation: Conversation, find: Callable[[str, str], str]) -> tuple[str, int]:
    """The first message, and the index where its pair begins."""
    for index, turn in enumerate(conversation.turns):
        question = conversation.turns[index - 1].text if index else ""
        if turn.role == "assistant" and (message := find(turn.text, question)):
            while index and conversation.turns[index - 1].role == "user":
                index -= 1
            return message, index
    return "", len(conversation.turns)


def _finder(starts: tuple[str, ...]) -> Callable[[str, str], str]:
    """(text, the question before it) → the beginning by which the text is a message, or ""."""
    named = re.compile(rf"{_ORNAMENT}({_any_of(starts)})", re.IGNORECASE) if _any_of(starts) else None

    def find(text: str, question: str) -> str:
        if tail := _tail(text, question):
            return tail
        text = text.strip() if len(text) < 2 * MAX_MESSAGE_CHARS else text
        if len(text) > MAX_MESSAGE_CHARS:
            return ""
        if named and (match := named.match(text)):
            return match[1]
        match = _KNOWN.match(text)
        return match["start"] if match and _is_message(text, question) else ""

    return find


def _tail(text: str, question: str) -> str:
    """The message for the sake of which an answer broke off: alone in its last paragraph, and not what it quotes."""
    before, _, last = text.rstrip().rpartition("\n\n")
    if not before or len(last) > MAX_MESSAGE_CHARS or (match := _KNOWN.match(last)) is None:
        return ""
    quoted = before.rstrip().endswith(":") or _ABOUT_ERRORS.search(question)
    return match["start"] if _TAIL.match(last) and _is_message(last, question) and not quoted else ""


def _is_message(text: str, question: str) -> bool:
    """Whether a text that begins as a message is one to its end."""
    if _IS_ANSWER.search(text):
        return False
    sentences = [sentence for sentence in _SENTENCE_END.split(text) if sentence.strip(" !*_⚠\ufe0f")]
    if not _FIRST.fullmatch(sentences[0]) or not all(map(_FURTHER.match, sentences[1:])):
        return False
    bare = len(sentences) == 1 and _AMBIGUOUS.fullmatch(text)
    return not (bare and _ABOUT_ERRORS.search(question))


def _any_of(starts: tuple[str, ...]) -> str:
    longest_first = sorted((start.strip() for start in starts if start.strip()), key=len, reverse=True)
    return "|".join(re.escape(start).replace("'", "['’]") for start in longest_first)


def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern, re.IGNORECASE | re.VERBOSE | re.DOTALL)


_START = rf"{_ORNAMENT}(?P<start>{_any_of((*MESSAGES, *AMBIGUOUS))})"
_KNOWN = _compiled(_START)
_FIRST = _compiled(rf"{_START}{_GOES_ON}{_MARKS}(?:(?:and|so|but)\ )?(?:{_ADVICE}.*)?")
_FURTHER = _compiled(rf"{_ORNAMENT}(?:{_ADVICE}|(?:{_any_of((*MESSAGES, *AMBIGUOUS))}){_GOES_ON}{_MARKS}\Z)")
_TAIL = _compiled(rf"{_ORNAMENT}(?:{_any_of((*MESSAGES, 'Network error'))})")
_AMBIGUOUS = _compiled(rf"{_ORNAMENT}(?:{_any_of(AMBIGUOUS)}){_MARKS}")
