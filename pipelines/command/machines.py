"""What of `chatserver train` must speak to machines: `--dry-run`, `down` and `orphans` become this.

python -m pipelines.command.machines estimate SPEC     # a job's spec as JSON: the choice, its price, the exact task
python -m pipelines.command.machines down JID
python -m pipelines.command.machines orphans [--down]
"""

import shlex
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import orjson
import typer
import yaml

from pipelines.launching.sky import SkyPilot
from pipelines.launching.sky_target import SkyTarget
from pipelines.launching.sky_task import task_for
from pipelines.launching.targets import Run, run_name, run_of
from services.command import run_command
from services.errors import Conflict, InvalidRequest
from services.jobs.jobs import unsigned

if TYPE_CHECKING:
    from services.jobs.jobs import Job

application = typer.Typer(
    name="chatserver train",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@application.command()
def estimate(spec: Annotated[str, typer.Argument(help="The spec of a job, as JSON.")]) -> None:
    """Say what would run where and what it costs; start nothing."""
    found = orjson.loads(spec)
    run = run_of(found, found["config"]["name"], "estimate", {})
    if found["on"] == "local":
        _say_local(run)
    else:
        _say_sky(run)


def _say_local(run: Run) -> None:
    words = ["--config", f"{run.config.name}.yaml", *(f"--data={path}" for path in run.data), "--out", run.out]
    print("on this machine, at no price:\n")
    print(f"python -m pipelines.training {shlex.join(words)}\n\n{run.config.to_yaml()}", end="")


def _say_sky(run: Run) -> None:
    """The task first: it is the same with and without a cloud."""
    task = task_for(run)
    print(f"the task:\n\n{readable(task)}", flush=True)
    found = SkyPilot().estimate(task)
    price = "no price is known" if found.usd_per_hour is None else f"${found.usd_per_hour:,.2f} an hour"
    print(f"{found.table}\n\nthe choice: {found.choice}; {price}")


class _Readable(yaml.SafeDumper):
    """A YAML dumper that writes a text of several lines as a block."""


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.Node:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Readable.add_representer(str, _text)


def readable(task: dict[str, Any]) -> str:
    return yaml.dump(task, Dumper=_Readable, sort_keys=False, width=120)


@application.command()
def down(jid: Annotated[str, typer.Argument(help="The job's id.")]) -> None:
    """Delete the SkyPilot machines of a fine-tuning that has ended."""
    with _opened_jobs() as (jobs, _):
        job = jobs.get(jid)
        signed, attached = jobs.signed(job), jobs.attached(job)
    if not signed:
        raise Conflict(unsigned(jid))
    if job.kind != "train" or job.spec["on"] != "sky":
        raise InvalidRequest(f"job {jid!r} does not run on SkyPilot")
    if not job.ended:
        raise InvalidRequest(f"job {jid!r} is {job.state}; `chatserver train cancel {jid}` ends it first")
    SkyTarget().down(attached if "kind" in attached else _found_by_name(job))
    print(f"the machines of {jid} are deleted")


@application.command()
def orphans(give_back: Annotated[bool, typer.Option("--down", help="Delete them.")] = False) -> None:
    """List SkyPilot machines of this installation that no running job owns, and what they cost."""
    with _opened_jobs() as (jobs, _):
        owned = [run_name(job.id, job.started_s) for job in jobs.unfinished() if job.kind == "train"]
    target = SkyTarget()
    found = target.orphans(owned)
    for remote in found:
        if give_back:
            target.down(remote)
        cost_usd = target.cost_usd(remote)
        price = "" if cost_usd is None else f", ${cost_usd:,.2f} so far"
        print(f"{remote['kind']} {remote['name']}{price}" + (" is deleted" if give_back else ""))
    if not found:
        print("no machine is without a job")
    elif not give_back:
        print("`chatserver train orphans --down` deletes them; they may belong to another installation")


def _found_by_name(job: "Job") -> dict[str, Any]:
    """The handle of a job whose own was lost between launching and keeping it, or is not signed."""
    kind = "managed" if job.spec["spot"] else "cluster"
    return {"kind": kind, "name": run_name(job.id, job.started_s), "request": "", "submitted_s": job.started_s}


def _opened_jobs() -> Any:
    from services.command.order.jobs import opened_jobs

    return opened_jobs(with_key=True)


if __name__ == "__main__":
    run_command(partial(application, prog_name="chatserver train"))
