"""`chatserver batch`: answers the questions of a file, shows how far a batch is, cancels it."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from services.errors import ConfigurationError, Gone

if TYPE_CHECKING:
    from redis import Redis

    from services.jobs.batches import Batches
    from services.jobs.jobs import Job, Jobs
    from services.jobs.stored_files import StoredFiles
    from services.settings import Settings

application = typer.Typer(help="Answer the questions of a file: submit, status, cancel.", no_args_is_help=True)
BatchId = Annotated[str, typer.Argument(help="The batch's id.")]
User = Annotated[str, typer.Option(help="Whose batch it is; `api`: that of programs on this machine without a key.")]
COPY_BYTES = 1 << 20


@application.command()
def submit(
    questions: Annotated[Path, typer.Argument(help="A file of JSON lines, as OpenAI's batches have them.")],
    endpoint: Annotated[str, typer.Option(help="What all lines have as their url.")] = "/v1/chat/completions",
    user: User = "api",
    output: Annotated[Path | None, typer.Option(help="With --wait: a copy of the answers.")] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Show the progress; exit code 0 if it finished.")] = False,
) -> None:
    """Answer every line of a file, with the priority of a batch."""
    from services.command.order.job_log import follow
    from services.jobs.celery_app import make_celery, wake

    if not questions.is_file():
        raise ConfigurationError(f"{questions} is not a file on this machine")
    with _opened() as (settings, redis, jobs, batches, files):
        job = batches.submit(user, _stored(files, questions, user), endpoint)
        wake(make_celery(settings), job.id)
        print(f"submitted as {job.id}; `chatserver batch status {job.id}` shows it")
        if not wait:
            return
        code = follow(jobs, redis, job.id)
        _say_files(jobs.get(job.id), batches, files, output)
    raise typer.Exit(code)


@application.command()
def status(batch_id: BatchId) -> None:
    """Show how many lines are answered, and where the answers are."""
    with _opened() as (_, _, jobs, batches, files):
        job = _batch(jobs, batch_id)
        print(f"{job.id}: {job.state}; {batches.progress(job).totals or 'the input is not checked yet'}")
        _say_files(job, batches, files, None)


@application.command()
def cancel(batch_id: BatchId) -> None:
    """End a batch. What is answered by then is in its files."""
    from services.jobs.celery_app import make_celery, wake

    with _opened() as (settings, _, jobs, batches, _):
        job = jobs.cancel(_batch(jobs, batch_id).id)
        batches.let_go(job)
        wake(make_celery(settings), job.id)
        print(f"{job.id} is {'ending' if job.cancelling else job.state}")


@contextmanager
def _opened() -> "Iterator[tuple[Settings, Redis, Jobs, Batches, StoredFiles]]":
    from services.command.access import command_settings
    from services.connection.connect import connect, translated
    from services.jobs.batches import Batches
    from services.jobs.jobs import Jobs
    from services.jobs.signature import job_key
    from services.jobs.stored_files import StoredFiles
    from services.wire.keys import Keys

    settings = command_settings()
    files = StoredFiles(settings.state_dir / "files", max_bytes=2**63)  # it lies on this machine already
    with connect(settings.redis_url, role="command") as redis, translated():
        jobs = Jobs(redis, Keys(settings.namespace), job_key(settings))
        yield settings, redis, jobs, Batches(jobs, files, settings.state_dir / "jobs"), files


def _stored(files: "StoredFiles", path: Path, user: str) -> str:
    """The id of a copy: the batch reads what the file has now."""
    with files.draft(user) as made, path.open("rb") as file:
        while block := file.read(COPY_BYTES):
            made.write(block)
        return files.publish(made, user, "batch", path.name).id


def _batch(jobs: "Jobs", batch_id: str) -> "Job":
    from services.jobs.batches import KIND

    job = jobs.get(batch_id)
    if job.kind != KIND:
        raise Gone(f"job {batch_id!r} is no batch; `chatserver jobs show {batch_id}` shows it")
    return job


def _say_files(job: "Job", batches: "Batches", files: "StoredFiles", output: Path | None) -> None:
    progress: Any = batches.progress(job)
    for what, file_id in (("answers", progress.output_file), ("errors", progress.error_file)):
        if file_id:
            found = files.content(files.get(file_id, job.spec["user"]))
            if what == "answers" and output is not None:
                found = Path(shutil.copyfile(found, output))
            print(f"{what}: {found} ({file_id})")
