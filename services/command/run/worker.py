"""`chatserver worker`: become one worker process."""

from pathlib import Path
from typing import Annotated

import typer

from services.command.launch import become
from services.engines import NAMES

Model = Annotated[str | None, typer.Option(help="Packaged or trained name, folder, GGUF file or hub id.")]
Engine = Annotated[str | None, typer.Option(help=f"{', '.join(NAMES)}.")]


def worker(
    model: Model = None,
    engine: Engine = None,
    name: Annotated[str | None, typer.Option(help="Name under which the model is served.")] = None,
    slots: Annotated[int | None, typer.Option(help="Requests that run at once.")] = None,
    context_tokens: Annotated[int | None, typer.Option(help="Upper bound of prompt + answer.")] = None,
    cache_gib: Annotated[float | None, typer.Option(help="Key/value cache of a CPU engine, GiB.")] = None,
    chat_template: Annotated[str | None, typer.Option(help="Named template for a model without one.")] = None,
    redis_url: Annotated[str | None, typer.Option(help="Where Redis or Valkey answers.")] = None,
    state_dir: Annotated[Path | None, typer.Option(help="Folder of caches and logs.")] = None,
    log_format: Annotated[str | None, typer.Option(help="human or json.")] = None,
    standby: Annotated[
        bool, typer.Option("--standby", help="Wait for a trained model that is wanted; with --model for that one only.")
    ] = False,
    check: Annotated[bool, typer.Option("--check", help="Probe: exit code 0 if a worker here can serve.")] = False,
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
