"""`chatserver web`: become one web process."""

from pathlib import Path
from typing import Annotated

import typer

from services.command.launch import become


def web(
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on; 0 takes a free one.")] = None,
    redis_url: Annotated[str | None, typer.Option(help="Where Redis or Valkey answers.")] = None,
    state_dir: Annotated[Path | None, typer.Option(help="Folder of caches and logs.")] = None,
    log_format: Annotated[str | None, typer.Option(help="human or json.")] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Health probe: exit code 0 if the web app on this machine is ready.")
    ] = False,
) -> None:
    """Serve the chat page and the HTTP API from this process."""
    become("webapp", check=check, host=host, port=port, redis_url=redis_url, state_dir=state_dir, log_format=log_format)
