"""The table of subcommands."""

import typer

from services.command import archive, groups, keys, limits, users
from services.command.look import arena, dead, doctor, export, models, status
from services.command.order import batch, clean, improve, jobs, train
from services.command.run import pipelines, up, web, worker
from services.command.talk import chat, send

application = typer.Typer(
    name="chatserver",
    help="A self-hosted chat system for language models over Redis streams.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
application.command()(up.up)
application.command()(chat.chat)
application.command()(send.send)
application.add_typer(models.application, name="models")
application.command()(status.status)
application.add_typer(dead.application, name="dead")
application.command()(doctor.doctor)
application.add_typer(keys.application, name="keys")
application.add_typer(limits.application, name="limits")
application.add_typer(users.application, name="users")
application.add_typer(groups.application, name="groups")
application.add_typer(arena.application, name="arena")
application.command()(export.export)
application.add_typer(clean.application, name="clean")
application.add_typer(train.application, name="train")
application.command()(improve.improve)
application.add_typer(batch.application, name="batch")
application.add_typer(jobs.application, name="jobs")
application.command()(archive.archive)
application.command()(worker.worker)
application.command()(web.web)
application.add_typer(pipelines.application, name="pipelines")
