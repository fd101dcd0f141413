"""`chatserver archive`: takes ended answers to the database once, as each web process does all the time."""


def archive() -> None:
    """Take the answers that have ended from Redis to the database. Web processes do this by themselves."""
    from services.chat.requests import Requests
    from services.command.access import command_settings
    from services.connection.connect import connect, translated
    from services.conversations.archivist import Archivist
    from services.database.database import Database
    from services.database.schema import migrate

    settings = command_settings()
    database = Database.of(settings)
    migrate(database)
    with connect(settings.redis_url, role="command") as redis, translated():
        closed = Archivist(database, Requests.from_settings(redis, settings)).round()
    print(f"{closed} answers archived")
