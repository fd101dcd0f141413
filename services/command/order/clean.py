"""`chatserver clean`: cleans conversations here (`run`) or as a job of the pipelines (`submit`); shows the result.

All subcommands except `submit` become `python -m pipelines.command`: nothing here imports the pipelines.
"""

import hashlib
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from services.errors import ConfigurationError
from services.jobs.recipe import checked_input

if TYPE_CHECKING:
    from services.jobs.jobs import Job

application = typer.Typer(
    help="Clean conversations into training data: run, submit, inspect, stats, diff.", no_args_is_help=True
)
PASSED_ON = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}
HERE = {
    "run": "Clean in this process, with a progress bar.",
    "inspect": "Read a dataset message by message, or a run before and after.",
    "stats": "Show a dataset in numbers.",
    "diff": "Compare two runs.",
}


@application.command()
def submit(
    recipe: Annotated[Path, typer.Argument(help="The recipe: a YAML file, such as infra/recipes/vicuna.yaml.")],
    inputs: Annotated[list[str], typer.Option("--in", help="A file or URL to read; repeat it for more.")],
    out: Annotated[
        str, typer.Option("--out", help="Folder for the result: its path on the machines of the pipelines, or s3://…")
    ],
    wait: Annotated[
        bool, typer.Option("--wait", help="Show the job's log until the job ends; exit code 0 if it finished.")
    ] = False,
) -> None:
    """Clean as a job of the pipelines. The same recipe, inputs and folder again continue the same job."""
    from services.command.access import command_settings
    from services.command.order.job_log import follow
    from services.connection.connect import connect, translated
    from services.jobs.celery_app import make_celery, wake
    from services.jobs.jobs import Jobs
    from services.jobs.signature import job_key
    from services.wire.keys import Keys

    spec = _spec(recipe, inputs, out)
    settings = command_settings()
    celery = make_celery(settings)
    with connect(settings.redis_url, role="command") as redis, translated():
        jobs = Jobs(redis, Keys(settings.namespace), job_key(settings))

        def again() -> "Job":
            job = jobs.submit(job_id(spec["out"]), "clean", Path(spec["out"]).name, spec)
            wake(celery, job.id)
            return job

        job = again()
        _say_what(job)
        if wait:
            raise typer.Exit(follow(jobs, redis, job.id, again))


def _spec(recipe: Path, inputs: list[str], out: str) -> dict[str, Any]:
    """The spec of the job. Raises ConfigurationError for an invalid recipe or a missing input."""
    from services.jobs.recipe import read_recipe

    read_recipe(recipe)
    absolute = [_absolute(name) for name in inputs]
    return {
        "recipe": recipe.read_text("utf-8"),
        "recipe_name": str(recipe),
        "inputs": absolute,
        # What records call their source: as typed, so that the result has the bytes of `clean run`.
        **({"labels": inputs} if inputs != absolute else {}),
        "out": checked_input(out) if "://" in out else str(Path(out).resolve()),
    }


def _absolute(name: str) -> str:
    if "://" in name:
        return checked_input(name)
    path = Path(name).resolve()
    if not path.is_file():
        raise ConfigurationError(f"the input {name} is not a file on this machine; give a file or a URL")
    return str(path)


def job_id(out: str) -> str:
    """The job id of a folder: its name, with characters that a key may have, and a digest of its path."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", Path(out).name).strip("-")[:60] or "clean"
    return f"{name}-{hashlib.sha256(out.encode()).hexdigest()[:8]}"


def _say_what(job: "Job") -> None:
    told = {
        "submitted": f"submitted as {job.id}; `chatserver jobs logs -f {job.id}` follows it",
        "running": f"job {job.id} is already running; `chatserver jobs logs -f {job.id}` follows it",
        "finished": f"job {job.id} is finished; `chatserver jobs remove {job.id}` and a new folder begin anew",
    }
    print(told.get(job.state, f"job {job.id} is {job.state}"))


def _pass_on(name: str) -> None:
    def command(context: typer.Context) -> None:
        from services.command.launch import module_command

        line = [*module_command("pipelines.command"), name, *context.args]
        os.execv(line[0], line)

    command.__doc__ = HERE[name]
    application.command(name, context_settings=PASSED_ON, add_help_option=False)(command)


for _name in HERE:
    _pass_on(_name)
