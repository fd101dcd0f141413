"""How full the disk of the state folder is, and what takes the room there."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flask import Blueprint, Response, jsonify

from services.database.database import FILE, Database
from services.database.size import size_bytes
from services.errors import Unavailable
from services.machine.disk import FEW_BYTES, free_bytes, sizes, total_bytes
from webapp.server.threads import in_thread


@dataclass(frozen=True)
class Storage:
    """The state folder and the database."""

    folder: Path
    database: Database

    def report(self) -> dict[str, Any]:
        """Sizes in bytes; walks the whole folder."""
        found = {name: size for name, size in sizes(self.folder).items() if not name.startswith(FILE)}
        return {
            "folder": str(self.folder.resolve()),
            "free_bytes": free_bytes(self.folder),
            "total_bytes": total_bytes(self.folder),
            "few_bytes": FEW_BYTES,
            "entries": [{"name": name, "bytes": size} for name, size in found.items() if size],
            "database": self._database(),
        }

    def _database(self) -> dict[str, Any]:
        kind = "SQLite" if self.database.is_sqlite else "PostgreSQL"
        try:
            return {"kind": kind, "bytes": size_bytes(self.database), "trouble": ""}
        except Unavailable as error:  # the rest of the report is worth more then
            return {"kind": kind, "bytes": 0, "trouble": error.message}


def add(routes: Blueprint, stored: Storage) -> None:
    """Route `storage`."""

    @routes.get("/storage")
    def report() -> Response:
        return jsonify(in_thread(stored.report))
