"""`chatserver worker`: become one worker process."""

from pathlib import Path
from typing import Annotated

import typer

from services.command.launch import become
from services.engines import NAMES

Model = Annotated[
    str | None, typer.Option(help="A packaged or trained model's name, a folder, a GGUF file or a hub id.")
]
Engine = Annotated[str | None, typer.Option(help=f"{', '.join(NAMES)}.")]


def worker(
    model: Model = None,
    engine: Engine = None,
    name: Annotated[str | None, typer.Option(help="Name under which the model is served.")] = None,
    slots: Annotated[int | None, typer.Option(help="Requests that the worker runs at once.")] = None,
    context_tokens: Annotated[int | None, typer.Option(help="Most tokens of prompt + answer.")] = None,
    cache_gib: Annotated[float | None, typer.Option(help="Size of a CPU engine's key/value cache, in GiB.")] = None,
    chat_template: Annotated[str | None, typer.Option(help="Chat template for a model without one.")] = None,
    redis_url: Annotated[str | None, typer.Option(help="Where Redis or Valkey answers.")] = None,
    state_dir: Annotated[Path | None, typer.Option(help="Folder of caches and logs.")] = None,
    log_format: Annotated[str | None, typer.Option(help="human or json.")] = None,
    standby: Annotated[
        bool,
        typer.Option(
            "--standby", help="Wait until a trained model is wanted, then serve it; with --model, that model only."
        ),
    ] = False,
    check: Annotated[
        bool, typer.Option("--check", help="Health probe: exit code 0 if a worker on this machine can serve.")
    ] = False,
) -> None:
    """Serve one model from this process. Every option is also a CHATSERVER_* variable."""
    become(
        "workers",
        *(["--standby", *([model] if model else [])] if standby else []),
        check=check,
        model=model,
        engine=engine,
        served_name=name,
        slots=slots,
        context_tokens=context_tokens,
        cache_gib=cache_gib,
        chat_template=chat_template,
        redis_url=redis_url,
        state_dir=state_dir,
        log_format=log_format,
    )
