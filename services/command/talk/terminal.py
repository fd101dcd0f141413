"""The terminal of `chatserver chat`: reads lines and commands, shows answers.

Enter sends; Esc Enter (or Alt-Enter) starts a new line; pasted text may hold line ends. Ctrl-C stops the answer or
empties the line, Ctrl-D leaves.
"""

import sys
import termios
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import redis
from prompt_toolkit import PromptSession
from prompt_toolkit.completion import WordCompleter
from prompt_toolkit.history import FileHistory
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from rich.console import Console
from rich.markup import escape

from services.chat.client import ChatClient
from services.command.plain import without_controls
from services.command.talk.answer import Answer, ask
from services.command.talk.conversation import Conversation
from services.command.talk.markdown import MarkdownDisplay
from services.connection.connect import translated
from services.errors import ChatServerError, InvalidRequest
from services.serving.registry import Registry
from services.wire.parsing import parse_sampling

HELP = """\
/model [NAME]    show the models, or talk to another one
/system [TEXT]   show or set the system message; - removes it
/temp [NUMBER]   show or set the temperature; 0 is greedy, - the model's default
/thinking [on]   show or set whether the model thinks first: on, off, - its own way
/regen           ask the last question again
/clear           forget the conversation
/save FILE       write it to a new file: Markdown for .md, else JSON
/help  /quit
Enter sends, Esc Enter starts a new line, Ctrl-C stops an answer."""


@contextmanager
def silent_keys() -> Iterator[None]:
    """Switch off the echo during an answer: a typed `^C` in the live part would leave lines behind."""
    before = termios.tcgetattr(sys.stdin)
    silent = list(before)
    silent[3] &= ~termios.ECHO
    termios.tcsetattr(sys.stdin, termios.TCSADRAIN, silent)
    try:
        yield
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)


class Terminal:
    """One interactive conversation."""

    def __init__(
        self,
        client: ChatClient,
        connection: redis.Redis,
        registry: Registry,
        conversation: Conversation,
        *,
        user: str,
        max_chars: int,
        history: Path,
        show_reasoning: bool = True,
    ) -> None:
        self._client = client
        self._connection = connection
        self._registry = registry
        self._conversation = conversation
        self._user = user
        self._max_chars = max_chars
        self._show_reasoning = show_reasoning
        self._console = Console(highlight=False)
        self._commands: dict[str, Callable[[str], None]] = {
            "/model": self._model,
            "/system": self._system,
            "/temp": self._temperature,
            "/thinking": self._thinking,
            "/regen": self._again,
            "/clear": self._clear,
            "/save": self._save,
            "/help": lambda argument: self._console.print(HELP, markup=False),
        }
        history.parent.mkdir(parents=True, exist_ok=True)
        history.touch(mode=0o600)
        self._session: PromptSession[str] = PromptSession(
            "> ",
            history=FileHistory(history),
            multiline=True,
            key_bindings=_keys(),
            completer=WordCompleter([*self._commands, "/quit"], sentence=True),
            complete_while_typing=False,
            prompt_continuation="  ",
        )

    def run(self) -> None:
        """Read and answer until /quit or Ctrl-D."""
        self._print(f"[dim]{escape(self._conversation.model)}; /help lists the commands, Ctrl-D leaves[/dim]")
        while True:
            try:
                line = self._session.prompt()
            except KeyboardInterrupt:
                continue
            except EOFError:
                return
            if line.strip() in ("/quit", "/exit"):
                return
            if line.strip():
                self._handle(line)

    def _handle(self, line: str) -> None:
        try:
            with translated():
                self._dispatch(line)
        except KeyboardInterrupt:
            self._print("[yellow]stopped following the answer; a worker may still be writing it[/yellow]")
        except ChatServerError as error:
            self._print(f"[red]{escape(str(error))} ({error.code})[/red]")

    def _dispatch(self, line: str) -> None:
        name, _, argument = line.strip().partition(" ")
        if name in self._commands:
            self._commands[name](argument.strip())
        elif name.startswith("/") and "\n" not in line and "/" not in name[1:]:
            raise InvalidRequest(f"unknown command {name}; /help lists them")
        else:
            self._ask(line)

    def _ask(self, text: str) -> None:
        request = self._conversation.question(text, user=self._user, max_chars=self._max_chars)
        with silent_keys(), MarkdownDisplay(self._console, reasoning=self._show_reasoning) as display:
            answer = ask(self._client, self._connection, request, display)
        self._conversation.answered(answer)
        self._print(_summary(answer))
        if omitted := self._conversation.newly_omitted(answer):
            self._print(f"[yellow]{omitted}[/yellow]")

    def _print(self, markup: str) -> None:
        self._console.print(without_controls(markup))

    # -- commands ------------------------------------------------------------------------------------------------

    def _model(self, name: str) -> None:
        served = {model.name: model for model in self._registry.models()}
        if name and name not in served:
            raise InvalidRequest(f"no worker has served {name!r}; served models: {', '.join(served) or 'none'}")
        if name:
            self._conversation.model = name
        for model in served.values():
            mark = "*" if model.name == self._conversation.model else " "
            self._print(f"{mark} {escape(model.name)}  [dim]{model.workers} workers, {model.queued} waiting[/dim]")

    def _system(self, text: str) -> None:
        if text:
            self._conversation.system = "" if text == "-" else text
        self._print(f"system: {escape(self._conversation.system) or '[dim]none[/dim]'}")

    def _temperature(self, text: str) -> None:
        if text:
            self._conversation.temperature = None if text == "-" else _number(text)
        chosen = self._conversation.temperature
        self._print(f"temperature: {self._default_temperature() if chosen is None else chosen}")

    def _thinking(self, text: str) -> None:
        choices = {"on": True, "off": False, "-": None}
        if text and text not in choices:
            raise InvalidRequest(f"/thinking {text!r} is not on, off or -")
        if text:
            self._conversation.thinking = choices[text]
        chosen = next(word for word, value in choices.items() if value is self._conversation.thinking)
        self._print(f"thinking: {'as the model does by itself' if chosen == '-' else chosen}{self._no_switch()}")

    def _no_switch(self) -> str:
        model = next((found for found in self._registry.models() if found.name == self._conversation.model), None)
        return "" if model is None or "thinking" in model.supports else " (this model has no such choice)"

    def _default_temperature(self) -> str:
        served = {model.name: model for model in self._registry.models()}
        model = served.get(self._conversation.model)
        return f"{model.sampling.temperature} (the model's default)" if model else "the model's default"

    def _again(self, argument: str) -> None:
        self._ask(self._conversation.again())

    def _clear(self, argument: str) -> None:
        self._conversation.clear()
        self._print("[dim]the conversation is forgotten[/dim]")

    def _save(self, name: str) -> None:
        if not name:
            raise InvalidRequest("/save needs a file name")
        self._conversation.save(Path(name))
        self._print(f"[dim]saved {len(self._conversation.messages)} messages to {escape(name)}[/dim]")


def _number(text: str) -> float | None:
    try:
        return parse_sampling({"temperature": float(text)}).temperature
    except ValueError:
        raise InvalidRequest(f"temperature {text!r} is not a number") from None


def _keys() -> KeyBindings:
    keys = KeyBindings()

    @keys.add("enter")
    def send(event: KeyPressEvent) -> None:
        event.current_buffer.validate_and_handle()

    @keys.add("escape", "enter")
    def new_line(event: KeyPressEvent) -> None:
        event.current_buffer.insert_text("\n")

    return keys


def _summary(answer: Answer) -> str:
    if answer.status == "failed":
        return f"[red]{escape(answer.message) or 'the answer failed'} ({escape(answer.code)})[/red]"
    if answer.status == "cancelled":
        return "[yellow]stopped[/yellow]"
    parts = [f"{answer.usage.get('completion_tokens', '?')} tokens"]
    if "total_ms" in answer.usage:
        parts.append(f"{answer.usage['total_ms'] / 1000:.1f} s")
    if answer.code == "length":
        parts.append("ended at the token limit")
    if answer.only_thought:
        parts.append("no answer: the model only thought")
    return f"[dim]{', '.join(parts)}[/dim]"
