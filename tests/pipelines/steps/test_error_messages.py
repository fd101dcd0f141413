"""Messages of the service go, answers about errors stay."""

import pytest

from pipelines.steps.error_messages import build
from services.jobs.steps.error_messages import ErrorMessagesOptions
from tests.pipelines.steps.local import Ran, answered, assert_sums_match, talk

STEP = build(ErrorMessagesOptions())

MESSAGES = [
    "Too many requests in 1 hour. Try again later.",
    "!Too many requests in 1 hour. Try again later.",
    "network error",
    "**NETWORK ERROR DUE TO HIGH TRAFFIC. PLEASE REGENERATE OR REFRESH THIS PAGE.**",
    "An error occurred.",
    "An error occurred. If this issue persists please contact us through our help center at help.openai.com.",
    "An error occurred. Either the engine you requested does not exist or there was another issue.",
    "Something went wrong. If this issue persists please contact us.",
    "Something went wrong, please try reloading the conversation.",
    "Our systems are a bit busy at the moment, please take a break and try again soon.",
    "Hmm...something seems to have gone wrong. Maybe try me again in a little bit.",
    "The server had an error while processing your request. Sorry about that!",
    "Error in message stream",
    "You’ve reached the current usage cap for GPT-4. Please try again after 3:05 PM.",
    "⚠️ Internal server error\n",
    "That model is currently overloaded with other requests. You can retry your request, or contact us through our "
    "help center at help.openai.com if the error persists. (Please include the request ID 9d3 in your message.)",
    "The server is overloaded or not ready yet.",
    "The server is overloaded",
    "Our systems are experiencing exceptionally high demand. Please hang tight as we work on scaling our systems.",
    "We're experiencing exceptionally high demand. Please hang tight as we work on scaling our systems.",
    "Only one message at a time. Please allow any other responses to complete before sending another message.",
    "The message you submitted was too long, please reload the conversation and submit something shorter.",
    "network error\n\nThere was an error generating a response",
    "Bad gateway. Please try again later.",
    "Too many requests in 1 hour",
    "Unable to load conversation abc-123",
    "Unable to load conversation 6c0f4d5e-aa11-4b2c-9d3e-000000000001",
    "Ceres is small.\n\nnetwork error",
    "Here is the first half of a long answer. " * 20 + "\n\nError in message stream",
]

ANSWERS = [
    "An error occurred because the list is empty; check `len(items)` first.",
    "Network errors have many causes. Here is how to find yours.",
    "Something went wrong in the third line: the bracket is never closed.",
    "Internal server error (500) means that the server met a condition it did not expect.",
    "Rate limit exceeded is what the API answers with status 429.",
    "Too many requests in 1 hour is the message that the API sends; it means that you hit a limit.",
    "The server is overloaded when its load average is above the number of its cores.",
    "Our systems are experiencing growth.",
    "An error occurred. Please find below the corrected function:\n\n```python\nx = 1\n```",
    "Something went wrong. Please try the following:",
    "Network error. Please try `ping 127.0.0.1` first.",
    "The message `Too many requests in 1 hour` is sent by the service.",
    "Too many requests in 1 hour. " + "Here is how a token bucket works. " * 12,
    "Look at the log. It says:\n\nnetwork error",
    "The program prints its last line:\n\n```\nError in message stream\n```",
    "Some things end badly.\n\nAn error occurred.",
    "Unable to load conversation partners into the car, she sighed.",
    "",
]


@pytest.mark.parametrize("text", MESSAGES)
def test_a_message_of_the_service_is_no_answer(text: str) -> None:
    result = Ran(STEP, answered(text))
    assert not result.kept
    assert result.lines[0]["reason"] == "error_message"
    assert result.lines[0]["detail"]
    assert_sums_match(result)


@pytest.mark.parametrize("text", ANSWERS)
def test_an_answer_that_talks_about_an_error_survives(text: str) -> None:
    assert Ran(STEP, answered(text)).kept


@pytest.mark.parametrize("text", ["Bad Gateway", "Internal Server Error.", "**Service Unavailable**"])
def test_the_name_of_an_error_answers_a_question_about_errors(text: str) -> None:
    assert Ran(STEP, talk("u:What does HTTP status 502 stand for?", "a:" + text)).kept
    assert not Ran(STEP, talk("u:Write a poem about spring.", "a:" + text)).kept


def test_what_a_person_says_is_not_searched() -> None:
    assert Ran(STEP, talk("u:network error", "a:Tell me more.")).kept


def test_the_pair_and_what_follows_is_cut() -> None:
    given = talk("u:1", "a:one", "u:2", "u:2!", "a:network error", "u:3", "a:three")
    result = Ran(STEP, given)
    assert result.texts == ["1", "one"]
    assert (result.lines[0]["turns"], result.lines[0]["detail"]) == ([2, 3, 4, 5, 6], "network error")
    assert_sums_match(result)


def test_the_whole_record_can_be_rejected() -> None:
    result = Ran(build(ErrorMessagesOptions(then="reject")), talk("u:1", "a:one", "u:2", "a:network error"))
    assert result.counts.turns_rejected == 4


def test_further_beginnings_can_be_named() -> None:
    step = build(ErrorMessagesOptions(starts=("Guthaben aufgebraucht",)))
    assert Ran(step, answered("guthaben aufgebraucht, bitte warten")).reason[0] == "error_message"
