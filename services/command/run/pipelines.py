"""`chatserver pipelines`: become a process of the pipelines."""

from pathlib import Path
from typing import Annotated

import typer

from services.command.launch import become

application = typer.Typer(
    help="Processes of cleaning, fine-tuning and batches: worker, trainings, batches, beat, flower.",
    no_args_is_help=True,
)
RedisUrl = Annotated[str | None, typer.Option(help="Where Redis or Valkey answers.")]
StateDir = Annotated[Path | None, typer.Option(help="Folder of caches and logs.")]
LogFormat = Annotated[str | None, typer.Option(help="human or json.")]
Check = Annotated[
    bool, typer.Option("--check", help="Health probe: exit code 0 if such a process on this machine answers.")
]


@application.command()
def worker(
    processes: Annotated[int | None, typer.Option(help="Processes that clean; default: one for each CPU.")] = None,
    redis_url: RedisUrl = None,
    state_dir: StateDir = None,
    log_format: LogFormat = None,
    check: Annotated[
        bool, typer.Option("--check", help="Health probe: exit code 0 if a worker on this machine answers.")
    ] = False,
) -> None:
    """Process the units of cleaning jobs. All machines that clean must share the jobs' folders."""
    options = {"redis_url": redis_url, "state_dir": state_dir, "log_format": log_format}
    become("pipelines", "worker", check=check, clean_processes=processes, **options)


@application.command()
def trainings(
    redis_url: RedisUrl = None,
    state_dir: StateDir = None,
    log_format: LogFormat = None,
    check: Check = False,
) -> None:
    """Launch and watch fine-tunings, and ask the questions of batches.

    Fine-tunings get the variables WANDB_API_KEY and HF_TOKEN of this process.
    """
    become("pipelines", "trainings", check=check, redis_url=redis_url, state_dir=state_dir, log_format=log_format)


@application.command()
def batches(
    redis_url: RedisUrl = None,
    state_dir: StateDir = None,
    log_format: LogFormat = None,
    check: Check = False,
) -> None:
    """Ask the questions of batches, where no `trainings` does. It shares the state folder with the web app."""
    become("pipelines", "batches", check=check, redis_url=redis_url, state_dir=state_dir, log_format=log_format)


@application.command()
def beat(
    redis_url: RedisUrl = None,
    log_format: LogFormat = None,
    check: Annotated[
        bool, typer.Option("--check", help="Health probe: exit code 0 if a beat is running anywhere.")
    ] = False,
) -> None:
    """Wake the pipelines every few seconds. One such process is enough; two do no harm."""
    become("pipelines", "beat", check=check, redis_url=redis_url, log_format=log_format)


@application.command()
def flower(
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int, typer.Option(help="Port to listen on.")] = 5555,
    redis_url: RedisUrl = None,
    log_format: LogFormat = None,
    check: Annotated[
        bool, typer.Option("--check", help="Health probe: exit code 0 if Flower on this machine answers.")
    ] = False,
) -> None:
    """Show Celery's workers and queues on a page. CHATSERVER_FLOWER_LOGIN=USER:PASSWORD sets its login."""
    become("pipelines", "flower", check=check, host=host, port=port, redis_url=redis_url, log_format=log_format)
