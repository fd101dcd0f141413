"""`chatserver up`: Redis, workers, the web app and the pipelines on this machine, under one log, until Ctrl-C."""

from typing import Annotated

import typer

from services.command.run.worker import Engine, Model


def up(
    model: Model = None,
    engine: Engine = None,
    host: Annotated[str | None, typer.Option(help="Address of the web app.")] = None,
    port: Annotated[int | None, typer.Option(help="Port of the web app; 0 takes a free one.")] = None,
    workers: Annotated[int, typer.Option(min=1, max=64, help="Worker processes.")] = 1,
    slots: Annotated[int | None, typer.Option(help="Requests that one worker runs at once.")] = None,
    pipelines: Annotated[bool, typer.Option(help="Run the pipelines (cleaning and fine-tuning) too.")] = True,
) -> None:
    """Run everything on this machine: Redis (unless REDIS_URL is set), workers, the web app, the pipelines."""
    from services.accounts.exposure import check_exposure
    from services.command.run.machine import Machine
    from services.settings import load_settings

    settings = load_settings(model=model, engine=engine, host=host, port=port, slots=slots)
    check_exposure(settings)
    with Machine(settings, workers, pipelines=pipelines) as machine:
        machine.run()
