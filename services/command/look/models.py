"""`chatserver models`: lists served and trained models, and says which trained models shall be served."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from redis import Redis

    from services.serving.trained_models import TrainedModels
    from services.wire.keys import Keys

application = typer.Typer(help="List models; serve, stop or remove a model that was fine-tuned here.")
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Name = Annotated[str, typer.Argument(help="Name of a trained model.")]


@application.callback(invoke_without_command=True)
def models(context: typer.Context, as_json: AsJson = False) -> None:
    """List the models: workers, slots, running and queued requests, tokens per second; where trained ones come from."""
    if context.invoked_subcommand is not None:
        return
    from services.command.tables import print_json
    from services.serving.overview import model_rows

    with _opened() as (redis, keys):
        rows = [_with_export(row) for row in model_rows(redis, keys)]
    if as_json:
        print_json(rows)
    elif rows:
        _print_rows(rows)
    else:
        print("no worker serves a model; start a worker with `chatserver worker` or `chatserver up`")


def _print_rows(rows: list[dict[str, Any]]) -> None:
    from services.command.plain import without_controls
    from services.command.tables import print_table

    print_table(rows, "name workers slots running queued tokens_per_s context_tokens state")
    if trained := [row for row in rows if row["trained"]]:
        print()
        print_table([_trained_row(row) for row in trained], "trained kind from job steps loss gguf path")
    for row in rows:
        for told in filter(None, (row["trouble"], (row["trained"] or {}).get("no_gguf"))):
            print(without_controls(f"{row['name']}: {told}"))


def _with_export(row: dict[str, Any]) -> dict[str, Any]:
    """What was exported to GGUF from a model of this machine's disks, and why it is not served."""
    from services.models.exported import find_exported

    about = row["trained"]
    found = find_exported(Path(about["path"])) if about else None
    precision = found.precision if found and found.file else ""
    refused = f"no GGUF: {found.refused}" if found and found.refused else ""
    return {**row, "trained": about and {**about, "gguf": precision, "no_gguf": refused}}


def _trained_row(row: dict[str, Any]) -> dict[str, Any]:
    about = row["trained"]
    return {
        "trained": row["name"],
        "kind": about["kind"],
        "from": " → ".join(about["lineage"]),
        "job": about["job"],
        "steps": about["step"],
        "loss": "" if about["loss"] is None else f"{about['loss']:.4f}",
        "gguf": about["gguf"],
        "path": about["path"],
    }


@application.command()
def serve(name: Name) -> None:
    """Serve a trained model: `chatserver up` or a standby worker loads it."""
    with _trained() as trained:
        trained.serve(name)
    print(f"{name} is wanted; a `chatserver up` or a `chatserver worker --standby` that has its folder loads it")


@application.command()
def stop(name: Name) -> None:
    """Stop serving a trained model. Its running requests go back to the queue."""
    with _trained() as trained:
        trained.stop_serving(name)
    print(f"{name} is no longer wanted; its unfinished requests wait until it is served again")


@application.command()
def export(
    name: Name, precision: Annotated[str, typer.Option(help="Of the weights: q8_0 or f16, which is larger.")] = "q8_0"
) -> None:
    """Export a trained model to GGUF, which the engines for CPUs read. Served if its answers are the model's."""
    from services.command.launch import module_command

    with _trained() as trained:
        folder = str(trained.get(name).source().path)
    line = [*module_command("pipelines.training.export"), folder, "--precision", precision]
    sys.stdout.flush()
    os.execv(line[0], line)


@application.command()
def forget(name: Name) -> None:
    """Remove a trained model from the list, unless a worker serves it. Its folder stays."""
    with _trained() as trained:
        trained.remove(name)
    print(f"{name} is forgotten; its folder stays")


@contextmanager
def _trained() -> "Iterator[TrainedModels]":
    from services.serving.trained_models import TrainedModels

    with _opened() as (redis, keys):
        yield TrainedModels(redis, keys)


@contextmanager
def _opened() -> "Iterator[tuple[Redis, Keys]]":
    from services.command.access import command_settings
    from services.connection.connect import connect, translated
    from services.wire.keys import Keys

    settings = command_settings()
    with connect(settings.redis_url, role="command") as redis, translated():
        yield redis, Keys(settings.namespace)
