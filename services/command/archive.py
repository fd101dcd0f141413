"""`chatserver archive`: takes ended answers to the database once, as each web process does all the time."""


def archive() -> None:
    """Take the answers that have ended from Redis to the database. Web processes do this by themselves."""
    from services.chat.journal import Journal
    from services.command.access import command_settings
    from services.connection.connect import connect, translated
    from services.conversations.archivist import Archivist
    from services.database.database import Database
    from services.database.schema import migrate
    from services.wire.keys import Keys

    settings = command_settings()
    database = Database.of(settings)
    migrate(database)
    with connect(settings.redis_url, role="command") as redis, translated():
        closed = Archivist(database, Journal(redis, Keys(settings.namespace))).round()
    print(f"{closed} answers archived")
