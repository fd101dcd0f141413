"""`python -m pipelines.command`, which `chatserver clean` becomes."""

import sys

import typer

from pipelines.command import diff, inspect, run, stats
from services.errors import ChatServerError

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
    try:
        application(prog_name="chatserver clean")
    except ChatServerError as error:
        print(f"chatserver: {error.message}", file=sys.stderr)
        sys.exit(2 if error.http_status == 400 else 1)
