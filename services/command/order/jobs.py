"""`chatserver jobs`: lists the jobs of the pipelines, shows one, prints its log, cancels or removes it."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from redis import Redis

    from services.jobs.jobs import Job, Jobs

application = typer.Typer(
    help="Jobs of cleaning and fine-tuning: list, show, read the log, cancel, remove.", no_args_is_help=True
)
Jid = Annotated[str, typer.Argument(help="The job's id.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@application.command("list")
def list_jobs(as_json: AsJson = False) -> None:
    """List the newest jobs, newest first."""
    from services.command.tables import print_json, print_table

    with opened_jobs() as (jobs, redis):
        rows = [_row(jobs, redis, job) for job in jobs.list()]
    if as_json:
        print_json(rows)
    elif rows:
        print_table(rows, "id kind name state done units age_s error")
    else:
        print("no jobs; `chatserver clean submit` makes a job")


def _row(jobs: "Jobs", redis: "Redis", job: "Job") -> dict[str, Any]:
    from services.connection.connect import server_time
    from services.jobs.jobs import progress_of

    now_s = server_time(redis)
    progress = progress_of(job, jobs.units(job.id), now_s)
    return {
        "id": job.id,
        "kind": job.kind,
        "name": job.name,
        "state": "ending" if job.cancelling else job.state,
        "done": f"{progress.fraction:.0%}",
        "units": f"{progress.num_done}/{progress.num_units}" if progress.num_units else "",
        "age_s": round(max(now_s - job.created_s, 0.0), 1),
        "error": job.error.partition("\n")[0],
    }


@application.command()
def show(jid: Jid, as_json: AsJson = False) -> None:
    """Show one job: its progress, and what each step read, kept and dropped."""
    from services.command.tables import print_json
    from services.connection.connect import server_time
    from services.jobs.jobs import progress_of

    with opened_jobs() as (jobs, redis):
        job = jobs.get(jid)
        progress = progress_of(job, jobs.units(jid), server_time(redis))
    if as_json:
        print_json({**asdict(job), "progress": asdict(progress)})
    else:
        _print_job(job, progress)


def _print_job(job: "Job", progress: Any) -> None:
    from services.command.order.job_log import progress_line
    from services.command.plain import without_controls
    from services.command.tables import print_table

    print(f"{job.id}: {progress_line(job, progress)}")
    print(f"recipe {job.spec.get('recipe_name', '-')}, {', '.join(job.spec.get('inputs', []))} → {job.spec.get('out')}")
    if progress.steps:
        print_table([_step_row(step) for step in progress.steps], "step in out rejected cut changed")
    if job.error:
        print(without_controls(job.error))


def _step_row(step: Any) -> dict[str, Any]:
    def listed(counts: dict[str, int]) -> str:
        return ", ".join(f"{name} {number:,}" for name, number in sorted(counts.items(), key=lambda pair: -pair[1]))

    return {
        "step": step.label,
        "in": step.records_in,
        "out": step.records_out,
        "rejected": listed(step.rejected),
        "cut": listed(step.cut),
        "changed": listed(step.changed),
    }


@application.command()
def logs(
    jid: Jid, follow: Annotated[bool, typer.Option("--follow", "-f", help="Follow the log until the job ends.")] = False
) -> None:
    """Print the log of a job. With -f, follow it until the job ends; exit code 0 if it finished."""
    from services.command.order.job_log import follow as follow_job
    from services.command.order.job_log import print_log

    with opened_jobs() as (jobs, redis):
        jobs.get(jid)
        if follow:
            raise typer.Exit(follow_job(jobs, redis, jid))
        print_log(jobs, jid)


@application.command()
def cancel(jid: Jid) -> None:
    """Cancel a job. Its finished units stay: when you submit the job again, it continues from them."""
    from services.command.order.job_log import stopping_line

    with opened_jobs() as (jobs, _):
        job = jobs.cancel(jid)
        stopping = stopping_line(job, jobs.units(jid))
    print(stopping or f"job {jid} is {job.state}")


@application.command()
def remove(jid: Jid) -> None:
    """Remove an ended job, and what it wrote into the state folder. A finished model, and a folder of yours, stay."""
    from services.command.access import command_settings
    from services.jobs.job_folders import JobFolders

    with opened_jobs(with_key=True) as (jobs, _):
        folders, job = JobFolders(command_settings().state_dir, jobs.signed), jobs.get(jid)
        kept: object = job.spec.get("out", "its folder")
        if job.ended and folders.own(job) is not None:
            folders.check_unused(job, jobs.unfinished())
            kept = folders.remove(job)
        jobs.remove(jid)
    print(f"job {jid} is removed" + (f"; {kept} stays" if kept else ", with its files"))


@contextmanager
def opened_jobs(*, with_key: bool = False) -> "Iterator[tuple[Jobs, Redis]]":
    """The installation's jobs; with its key where signatures must be checked."""
    from services.command.access import command_settings
    from services.connection.connect import connect, translated
    from services.jobs.jobs import Jobs
    from services.jobs.signature import job_key
    from services.wire.keys import Keys

    settings = command_settings()
    with connect(settings.redis_url, role="command") as redis, translated():
        yield Jobs(redis, Keys(settings.namespace), job_key(settings) if with_key else b""), redis
