"""`chatserver clean`: clean conversations, here (`run`) or as a job of the pipelines (`submit`); look at the result.

All but `submit` becomes `python -m pipelines.command`: nothing of the pipelines is imported here.
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
    "inspect": "Read a dataset turn by turn, or a run before and after.",
    "stats": "What a dataset looks like, in numbers.",
    "diff": "Compare two runs.",
}


@application.command()
def submit(
    recipe: Annotated[Path, typer.Argument(help="A recipe: YAML, such as infra/recipes/vicuna.yaml.")],
    inputs: Annotated[list[str], typer.Option("--in", help="A file or URL to read; repeat it for more.")],
    out: Annotated[Path, typer.Option("--out", help="Folder for the result, as the machines of the pipelines see it.")],
    wait: Annotated[
        bool, typer.Option("--wait", help="Show the job's log until the job ends; exit code 0 if it finished.")
    ] = False,
) -> None:
    """Clean as a job on Celery. Submitting the same recipe, inputs and folder again continues the same job."""
    from services.command.access import command_settings
    from services.command.order.job_log import follow
    from services.connection.connect import connect, translated
    from services.jobs.celery_app import make_celery, wake
    from services.jobs.jobs import Jobs
    from services.wire.keys import Keys

    spec = _spec(recipe, inputs, out)
    settings = command_settings()
    celery = make_celery(settings)
    with connect(settings.redis_url, role="command") as redis, translated():
        jobs = Jobs(redis, Keys(settings.namespace))

        def again() -> "Job":
            job = jobs.submit(job_id(spec["out"]), "clean", Path(spec["out"]).name, spec)
            wake(celery, job.id)
            return job

        job = again()
        _say_what(job)
        if wait:
            raise typer.Exit(follow(jobs, redis, job.id, again))


def _spec(recipe: Path, inputs: list[str], out: Path) -> dict[str, Any]:
    """Raises ConfigurationError for a recipe that is wrong or an input that is not there."""
    from services.jobs.recipe import read_recipe

    read_recipe(recipe)
    return {
        "recipe": recipe.read_text("utf-8"),
        "recipe_name": str(recipe),
        "inputs": [_absolute(name) for name in inputs],
        "out": str(out.resolve()),
    }


def _absolute(name: str) -> str:
    if "://" in name:
        return checked_input(name)
    path = Path(name).resolve()
    if not path.is_file():
        raise ConfigurationError(f"the input {name} is not a file on this machine; give files or URLs")
    return str(path)


def job_id(out: str) -> str:
    """The job of a folder: its name, made fit for a key, and a digest of its path."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", Path(out).name).strip("-")[:60] or "clean"
    return f"{name}-{hashlib.sha256(out.encode()).hexdigest()[:8]}"


def _say_what(job: "Job") -> None:
    told = {
        "submitted": f"submitted as {job.id}; `chatserver jobs logs -f {job.id}` follows it",
        "running": f"job {job.id} runs already; `chatserver jobs logs -f {job.id}` follows it",
        "finished": f"job {job.id} is finished; `chatserver jobs remove {job.id}` and another folder begin anew",
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
