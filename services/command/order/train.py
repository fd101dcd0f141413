"""`chatserver train`: fine-tunes a model on this machine or on SkyPilot; watches, cancels, deletes the machines.

A fine-tuning is a job of the pipelines. The subcommands that speak to the machines (`--dry-run`, `down`, `orphans`)
become `python -m pipelines.command.machines`: nothing here imports the pipelines.
"""

import hashlib
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import orjson
import typer

from services.errors import ConfigurationError, Conflict

if TYPE_CHECKING:
    from services.jobs.jobs import Job
    from services.jobs.training import TrainingConfig
    from services.jobs.training_jobs import Place

application = typer.Typer(help="Fine-tune models: submit, list, logs, cancel, down, orphans.", no_args_is_help=True)
Jid = Annotated[str, typer.Argument(help="The job's id.")]


@application.command()
def submit(
    preset: Annotated[str, typer.Argument(help="A preset (`chatserver train presets` lists them) or a YAML file.")],
    data: Annotated[
        list[str] | None, typer.Option(help="A data.jsonl written by `chatserver clean`, or its folder; repeatable.")
    ] = None,
    eval_data: Annotated[
        list[str] | None,
        typer.Option(help="A validation.jsonl of `chatserver clean`: evaluated, never trained on; repeatable."),
    ] = None,
    on: Annotated[str, typer.Option(help="Where to run: local (this machine) or sky (SkyPilot).")] = "local",
    spot: Annotated[
        bool,
        typer.Option(
            "--spot", help="With SkyPilot: take cheaper machines. A run that loses its machine continues on another."
        ),
    ] = False,
    out: Annotated[
        str | None,
        typer.Option(help="Folder or bucket for the checkpoints and the model; default for local: state_dir/trained."),
    ] = None,
    gpus: Annotated[
        int, typer.Option(min=0, help="GPUs of each machine; default: the preset's with SkyPilot, 1 here.")
    ] = 0,
    nodes: Annotated[int, typer.Option(min=1, help="Number of machines, with SkyPilot.")] = 1,
    infra: Annotated[
        str, typer.Option(help="SkyPilot's cloud: aws, gcp/us-central1, k8s, slurm; default: the cheapest.")
    ] = "",
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="Override a field of the preset: epochs=1; repeatable.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would run, where, and its price; start nothing.")
    ] = False,
    wait: Annotated[
        bool, typer.Option("--wait", help="Show the job's log until the job ends; exit code 0 if it finished.")
    ] = False,
) -> None:
    """Fine-tune a model as a job. The same configuration, data and folder again continue the same job."""
    from services.jobs.training_jobs import Place

    files = [*(data or []), *(eval_data or [])]
    config = _config(preset, set_ or [], eval_data or [])
    place = Place(on, spot, gpus, nodes, infra)
    if dry_run:
        _rehearse(_rehearsal(config, files, out, place))
    if not data:
        raise ConfigurationError("give the data, such as --data cleaned/data.jsonl, which `chatserver clean` writes")
    _submit(config, files, out, place, wait=wait)


@application.command()
def preview(
    preset: Annotated[str, typer.Argument(help="A preset or a YAML file.")],
    data: Annotated[list[str], typer.Option(help="A data.jsonl written by `chatserver clean`, or its folder.")],
    eval_data: Annotated[list[str] | None, typer.Option(help="A file that is evaluated only; repeatable.")] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="Override a field of the preset.")] = None,
    examples: Annotated[int, typer.Option(min=0, help="How many conversations to show.")] = 3,
) -> None:
    """Read the data as the training would: counts, cuts, refusals, tokens and steps, and what is learnt."""
    from services.jobs.training_jobs import Place

    spec = _rehearsal(_config(preset, set_ or [], eval_data or []), [*data, *(eval_data or [])], None, Place())
    _become("pipelines.command.preview", "--examples", str(examples), orjson.dumps(spec).decode())


def _config(preset: str, pairs: list[str], eval_data: list[str]) -> "TrainingConfig":
    """Evaluation files are the last ones of the data: the number says which those are."""
    from services.jobs.training import read_training

    counted = {"eval_files": str(len(eval_data))} if eval_data else {}
    return read_training(preset, {**overrides(pairs), **counted})


def _rehearse(spec: dict[str, Any]) -> None:
    """First what the data hold: an error there costs nothing yet. Then where it would run, and the price."""
    if spec["data"]:
        _read_as_training(spec)
        print()
    _become_command("estimate", orjson.dumps(spec).decode())


def _read_as_training(spec: dict[str, Any], examples: int = 3) -> None:
    """Show what the training would make of its data. Ends this command where the training would end."""
    from services.command.launch import module_command

    sys.stdout.flush()
    command = [*module_command("pipelines.command.preview"), "--examples", str(examples), orjson.dumps(spec).decode()]
    if code := subprocess.run(command, check=False).returncode:
        raise typer.Exit(code)


def overrides(pairs: list[str]) -> dict[str, str]:
    for pair in pairs:
        if "=" not in pair:
            raise ConfigurationError(f"--set {pair!r} is not field=value, such as epochs=1")
    return {name.strip(): value.strip() for name, _, value in (pair.partition("=") for pair in pairs)}


def _rehearsal(config: "TrainingConfig", data: list[str], out: str | None, place: "Place") -> dict[str, Any]:
    """The spec of a dry run, which needs neither data nor a bucket."""
    from services.jobs.training_jobs import training_spec

    assumed = out or ("s3://your-bucket" if place.on == "sky" else str(Path("trained") / config.name))
    return training_spec(config, data, assumed, place)


def _submit(config: "TrainingConfig", data: list[str], out: str | None, place: "Place", *, wait: bool) -> None:
    from services.command.access import command_settings
    from services.command.order.clean import job_id
    from services.command.order.job_log import follow
    from services.connection.connect import connect, translated
    from services.jobs.celery_app import make_celery, wake
    from services.jobs.jobs import Jobs
    from services.jobs.signature import job_key
    from services.jobs.training_jobs import difference_of, training_spec
    from services.serving.trained_models import TrainedModels
    from services.wire.keys import Keys

    settings = command_settings()
    if out is None and place.on == "sky":
        raise ConfigurationError(
            "SkyPilot machines are deleted after the run: give a bucket, such as --out s3://my-bucket/my-run"
        )
    celery = make_celery(settings)
    with connect(settings.redis_url, role="command") as redis, translated():
        keys = Keys(settings.namespace)
        jobs, base = Jobs(redis, keys, job_key(settings)), TrainedModels(redis, keys).find(config.model)
        if base is not None:  # a model that was trained here is trained further from where it is
            config = config.model_copy(update={"model": base.path})
        spec = training_spec(config, data, out or str(settings.state_dir / "trained" / config.name), place)
        if out is None:
            spec["out"] = str(_own_folder(settings.state_dir, spec))
        if place.on == "sky":
            _read_as_training(spec, examples=0)  # before a machine is rented

        def again() -> "Job":
            try:
                job = jobs.submit(job_id(spec["out"]), "train", config.name, spec)
            except Conflict:
                before = jobs.get(job_id(spec["out"]))
                raise Conflict(
                    f"job {before.id!r} trains something else into {spec['out']}: {difference_of(before.spec, spec)}; "
                    f"give another --out, or forget that job with `chatserver jobs remove {before.id}`"
                ) from None
            wake(celery, job.id)
            return job

        job = again()
        _say_what(job)
        if wait:
            raise typer.Exit(follow(jobs, redis, job.id, again))


def _own_folder(state_dir: Path, spec: dict[str, Any]) -> Path:
    """The folder of this configuration with what the data hold now."""
    what = orjson.dumps([spec["config"], spec["digests"]])
    return state_dir.resolve() / "trained" / f"{spec['config']['name']}-{hashlib.sha256(what).hexdigest()[:8]}"


def _say_what(job: "Job") -> None:
    follow = f"`chatserver train logs -f {job.id}` follows it"
    told = {
        "submitted": f"submitted as {job.id}; {follow}",
        "running": f"job {job.id} is already running; {follow}",
        "finished": f"job {job.id} is finished: its result is in {job.spec['out']}",
    }
    print(told.get(job.state, f"job {job.id} is {job.state}"))


@application.command()
def presets() -> None:
    """List the presets and what they train."""
    from services.command.tables import print_table
    from services.jobs.training import preset_names, read_training

    shown = ("model", "template", "seq_len", "tokens_per_step", "epochs", "learning_rate", "sky")
    configs = [(name, read_training(name)) for name in preset_names()]
    rows = [{"preset": name, **{field: getattr(config, field) for field in shown}} for name, config in configs]
    print_table(rows, " ".join(("preset", *shown)))


@application.command("list")
def list_trainings(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """List the newest fine-tunings, newest first."""
    from services.command.order.jobs import opened_jobs
    from services.command.tables import print_json, print_table
    from services.connection.connect import server_time

    with opened_jobs() as (jobs, redis):
        now_s = server_time(redis)
        rows = [_row(job, jobs.units(job.id).get("train", {}), now_s) for job in jobs.list() if job.kind == "train"]
    if as_json:
        print_json(rows)
    elif rows:
        print_table(rows, "id name on state step loss tokens_per_s eta_s cost_usd age_s error")
    else:
        print("no fine-tunings; `chatserver train submit` starts one")


def _row(job: "Job", note: dict[str, Any], now_s: float) -> dict[str, Any]:
    outcome = note.get("outcome") or {}
    state = "ending" if job.cancelling else job.state
    if state == "running":
        state = outcome.get("state") or state  # such as recovering
    return {
        "id": job.id,
        "name": job.name,
        "on": job.spec.get("on", "") + (" spot" if job.spec.get("spot") else ""),
        "state": state,
        "step": f"{note['records']}/{note['of']}" if note.get("of") else "",
        "loss": "" if note.get("loss") is None else f"{note['loss']:.4f}",
        "tokens_per_s": note.get("tokens_per_s", ""),
        "eta_s": note.get("eta_s", "") if state == "running" else "",
        "cost_usd": outcome.get("cost_usd") or "",
        "age_s": round(max(now_s - job.created_s, 0.0), 1),
        "error": job.error.partition("\n")[0],
    }


@application.command()
def logs(
    jid: Jid, follow: Annotated[bool, typer.Option("--follow", "-f", help="Follow the log until the job ends.")] = False
) -> None:
    """Print the log of a fine-tuning. With -f, follow it until the job ends; exit code 0 if it finished."""
    from services.command.order.jobs import logs as job_logs

    job_logs(jid, follow)


@application.command()
def cancel(
    jid: Jid, wait: Annotated[bool, typer.Option("--wait", help="Return only after the job has ended.")] = False
) -> None:
    """Cancel a fine-tuning and delete its machines. Its checkpoints stay: the same job again continues from them."""
    from services.command.access import command_settings
    from services.command.order.job_log import stopping_line
    from services.command.order.jobs import opened_jobs
    from services.jobs.celery_app import make_celery, wake

    celery = make_celery(command_settings())
    with opened_jobs() as (jobs, _):
        job = jobs.cancel(jid)
        wake(celery, job.id)
        if stopping := stopping_line(job, jobs.units(jid)):
            print(stopping, flush=True)
        while wait and not job.ended:
            time.sleep(0.5)
            job = jobs.get(jid)
    if wait or not stopping:
        print(f"job {jid} is {job.state}")


@application.command()
def down(jid: Jid) -> None:
    """Delete the SkyPilot machines that an ended fine-tuning has left behind."""
    _become_command("down", jid)


@application.command()
def orphans(
    give_back: Annotated[bool, typer.Option("--down", help="Delete them.")] = False,
) -> None:
    """List SkyPilot machines of this installation that no running job owns, and what they cost."""
    _become_command("orphans", *(["--down"] if give_back else []))


def _become_command(*arguments: str) -> None:
    _become("pipelines.command.machines", *arguments)


def _become(module: str, *arguments: str) -> None:
    from services.command.launch import module_command

    line = [*module_command(module), *arguments]
    sys.stdout.flush()
    os.execv(line[0], line)
