"""The Lua scripts of the jobs, and what they are told of the wire. No Python besides the loader."""

from services.connection.scripts import Script
from services.wire.messages import TERMINAL


def script(name: str) -> Script:
    return Script(f"jobs/{name}", TERMINAL=TERMINAL)
