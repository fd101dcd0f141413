"""`chatserver models`: what is served."""

from typing import Annotated

import typer

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def models(as_json: AsJson = False) -> None:
    """List the models: workers, slots, running and queued requests, tokens per second."""
    from services.command.access import command_settings
    from services.command.tables import print_json, print_table
    from services.connection import connect, translated
    from services.overview import model_rows
    from services.protocol import Keys

    settings = command_settings()
    with connect(settings.redis_url, role="command") as redis, translated():
        rows = model_rows(redis, Keys(settings.namespace))
    if as_json:
        print_json(rows)
    elif rows:
        print_table(rows, "name workers slots running queued tokens_per_s context_tokens")
    else:
        print("no model is served: start one with `chatserver worker` or `chatserver up`")
