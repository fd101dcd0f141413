"""`python -m pipelines.command`; `chatserver clean` replaces its own process with this program."""

from functools import partial

import typer

from pipelines.command import diff, inspect, run, stats
from services.command import run_command

application = typer.Typer(
    name="chatserver clean",
    help="Clean conversations into training data.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
application.command()(run.run)
application.command()(inspect.inspect)
application.command()(stats.stats)
application.command()(diff.diff)


if __name__ == "__main__":
    run_command(partial(application, prog_name="chatserver clean"))
