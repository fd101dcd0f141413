"""`chatserver status`: queues, workers, requests in flight and dead letters."""

from typing import Annotated

import typer

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def status(as_json: AsJson = False) -> None:
    """Show the queue of each model, the workers, the requests in flight and the dead letters."""
    from services.command.access import command_settings
    from services.command.tables import print_json, print_table
    from services.connection.connect import address_of, connect, translated
    from services.serving.overview import overview
    from services.wire.keys import Keys

    settings = command_settings()
    with connect(settings.redis_url, role="command") as redis, translated():
        found = overview(redis, Keys(settings.namespace))
        address = address_of(redis)
    if as_json:
        print_json(found)
        return
    server = found["redis"]
    full = f" ({percent} % of its maxmemory)" if (percent := server["memory_percent"]) else ""
    print(f"{server['server']} {server['version']} at {address}, {server['used_memory_mib']} MiB{full}\n")
    print_table(found["models"], "name workers slots running queued oldest_s in_flight dead tokens_per_s")
    print()
    print_table(found["workers"], "wid model engine slots running tokens_per_s memory_mib version age_s host pid")
    print()
    print_table(found["requests"], "rid model user status tokens tries age_s wid")
    if (more := found["requests_in_flight"] - len(found["requests"])) > 0:
        print(f"… and {more} more")
    if found["dead"]:
        print("\nGiven up, the newest (`chatserver dead` lists more, runs them again or drops them):")
        print_table(found["dead"], "rid model user reason age_s")
