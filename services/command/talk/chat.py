"""`chatserver chat`: a conversation in the terminal, directly over Redis. With a pipe as stdin, one question."""

import sys
from typing import Annotated

import typer

from services.command.talk.send import MaxTokens, Model, System, Temperature, Thinking, read_stdin, run_once


def chat(
    model: Model = None,
    system: System = "",
    temperature: Temperature = None,
    max_tokens: MaxTokens = None,
    thinking: Thinking = None,
    reasoning: Annotated[
        bool, typer.Option("--reasoning/--no-reasoning", help="Show what a model thinks before it answers, dimmed.")
    ] = True,
) -> None:
    """Chat in the terminal. With a pipe as stdin, its text is one message, and the answer goes to stdout."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        return run_once(read_stdin(), model, system, temperature, max_tokens, thinking=thinking)

    from services.chat.client import ChatClient
    from services.command.access import choose_model, command_settings, user_id
    from services.command.talk.conversation import Conversation
    from services.command.talk.terminal import Terminal
    from services.connection.connect import connect, translated
    from services.serving.registry import Registry
    from services.wire.keys import Keys

    settings = command_settings()
    with connect(settings.redis_url, role="command") as redis:
        registry = Registry(redis, Keys(settings.namespace))
        with translated():
            name = choose_model(registry, model)
        conversation = Conversation(
            name, system=system, temperature=temperature, max_tokens=max_tokens, thinking=thinking
        )
        client = ChatClient.from_settings(redis, settings)
        terminal = Terminal(
            client,
            redis,
            registry,
            conversation,
            user=user_id(),
            max_chars=settings.max_message_chars,
            history=settings.state_dir / "chat_history",
            show_reasoning=reasoning,
        )
        terminal.run()
