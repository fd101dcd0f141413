"""`chatserver improve`: people's judgements → pairs of answers → DPO → served, in one command."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from services.errors import Conflict

if TYPE_CHECKING:
    from services.jobs.jobs import Job
    from services.judgements.improvement import Improvement
    from services.serving.trained_models import TrainedModels


def improve(
    model: Annotated[str, typer.Option(help="The model to improve; default: the preset's.")] = "",
    preset: Annotated[
        str, typer.Option(help="How to train: a preset (`chatserver train presets`) or a YAML file.")
    ] = "smollm2-135m",
    on: Annotated[str, typer.Option(help="Where to run: local (this machine) or sky (SkyPilot).")] = "local",
    out: Annotated[
        str, typer.Option(help="Folder or bucket for the model; default for local: state_dir/trained.")
    ] = "",
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="Override a field of the preset: epochs=1; repeatable.")
    ] = None,
    min_pairs: Annotated[int, typer.Option(min=1, help="Refuse to train on fewer pairs.")] = 20,
    wait: Annotated[
        bool, typer.Option("--wait", help="Show the job's log until the job ends; exit code 0 if it finished.")
    ] = False,
) -> None:
    """Fine-tune a model on what people preferred (votes, corrections, versions), then serve it."""
    from services.command.access import command_settings
    from services.command.order.job_log import follow
    from services.connection.connect import connect, translated
    from services.jobs.celery_app import make_celery, wake
    from services.jobs.jobs import Jobs
    from services.jobs.signature import job_key
    from services.serving.trained_models import TrainedModels
    from services.wire.keys import Keys

    settings = command_settings()
    celery = make_celery(settings)
    with connect(settings.redis_url, role="command") as redis, translated():
        keys = Keys(settings.namespace)
        jobs = Jobs(redis, keys, job_key(settings))
        order = _order(settings.state_dir, TrainedModels(redis, keys), model, preset, on, out, set_ or [], min_pairs)

        def again() -> "Job":
            try:
                job = jobs.submit(order.id, "train", order.name, order.spec)
            except Conflict:
                raise Conflict(
                    f"job {order.id!r} trains the same pairs otherwise; "
                    f"forget it with `chatserver jobs remove {order.id}`"
                ) from None
            wake(celery, job.id)
            return job

        job = again()
        _say(order, job)
        if wait:
            raise typer.Exit(follow(jobs, redis, job.id, again))


def _order(
    state_dir: Path,
    trained: "TrainedModels",
    model: str,
    preset: str,
    on: str,
    out: str,
    given: list[str],
    min_pairs: int,
) -> "Improvement":
    from services.command.look.arena import reading
    from services.command.order.train import overrides
    from services.jobs.training_jobs import Place
    from services.judgements.improvement import improvement, preference_config
    from services.judgements.records import pairs

    config = preference_config(preset, model, overrides(given))
    with reading() as session:
        found = pairs(session)
    return improvement(found, state_dir, config, trained.find, place=Place(on), out=out, min_pairs=min_pairs)


def _say(order: "Improvement", job: "Job") -> None:
    print(f"{order.num_pairs} pairs of answers{f' ({order.left_out})' if order.left_out else ''}")
    told = {
        "submitted": f"submitted as {job.id}; `chatserver train logs -f {job.id}` follows it; its model will be served",
        "running": f"job {job.id} is already running; `chatserver train logs -f {job.id}` follows it",
        "finished": f"job {job.id} is finished: it learnt these very judgements",
    }
    print(told.get(job.state, f"job {job.id} is {job.state}"))
