"""The Lua scripts of the jobs, and the constants that they share. No Python besides the loader."""

from services.connection.scripts import Script
from services.wire.messages import TERMINAL


def script(name: str) -> Script:
    return Script(f"jobs/{name}", TERMINAL=TERMINAL)
