"""`chatserver send`: one question, the answer on stdout."""

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from services.errors import InvalidRequest

if TYPE_CHECKING:
    from services.wire.messages import Priority

Model = Annotated[
    str | None, typer.Option("--model", "-m", help="Model that answers; default: the first one that is served.")
]
System = Annotated[str, typer.Option("--system", "-s", help="System message.")]
Temperature = Annotated[
    float | None, typer.Option("--temp", "-t", help="Temperature; 0 is greedy. Default: the model's own.")
]
Thinking = Annotated[
    bool | None,
    typer.Option("--thinking/--no-thinking", help="Whether a model that has the choice thinks before it answers."),
]
MaxTokens = Annotated[int | None, typer.Option("--max-tokens", help="Most tokens of the answer.")]


def send(
    text: Annotated[str, typer.Argument(help="The message; - reads stdin.")],
    model: Model = None,
    system: System = "",
    temperature: Temperature = None,
    max_tokens: MaxTokens = None,
    thinking: Thinking = None,
    batch: Annotated[bool, typer.Option("--batch", help="Let interactive requests go first.")] = False,
) -> None:
    """Send one message and stream the answer to stdout."""
    text = read_stdin() if text == "-" else text
    priority: Priority = "batch" if batch else "interactive"
    run_once(text, model, system, temperature, max_tokens, priority=priority, thinking=thinking)


def read_stdin() -> str:
    """All of stdin as one message, without the line end that `echo` adds."""
    try:
        return sys.stdin.buffer.read().decode().removesuffix("\n")
    except UnicodeDecodeError as error:
        raise InvalidRequest(f"stdin is not UTF-8: {error.reason} at byte {error.start}") from None


def run_once(
    text: str,
    model: str | None,
    system: str,
    temperature: float | None,
    max_tokens: int | None,
    *,
    priority: "Priority" = "interactive",
    thinking: bool | None = None,
) -> None:
    """Ask one question: text to stdout, errors to stderr. Exits with the answer's exit code unless it finished."""
    from services.chat.client import ChatClient
    from services.command.access import choose_model, command_settings, user_id
    from services.command.plain import NO_ANSWER, PlainDisplay
    from services.command.talk.answer import ask
    from services.command.talk.conversation import Conversation
    from services.connection.connect import connect, translated
    from services.serving.registry import Registry
    from services.wire.keys import Keys

    settings = command_settings()
    display = PlainDisplay()
    with connect(settings.redis_url, role="command") as redis:
        with translated():
            name = choose_model(Registry(redis, Keys(settings.namespace)), model)
        conversation = Conversation(
            name, system=system, temperature=temperature, max_tokens=max_tokens, priority=priority, thinking=thinking
        )
        request = conversation.question(text, user=user_id(), max_chars=settings.max_message_chars)
        try:
            answer = ask(ChatClient.from_settings(redis, settings), redis, request, display)
        finally:
            display.end()
    if answer.only_thought and answer.code == "length":
        display.note(NO_ANSWER)
    if answer.status != "finished":
        print(f"chatserver: {answer.message or 'stopped'} ({answer.code or answer.status})", file=sys.stderr)
        raise typer.Exit(answer.exit_code)
