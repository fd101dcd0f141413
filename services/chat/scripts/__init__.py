"""The Lua scripts of requests and queues, and the constants that they share. No Python besides the loader."""

from services.connection.scripts import Constant, Script
from services.wire.keys import GROUP, HANDBACK, VERSION
from services.wire.messages import TERMINAL


def script(name: str, **constants: Constant) -> Script:
    """`constants` are those of this script alone."""
    return Script(f"chat/{name}", VERSION=VERSION, GROUP=GROUP, HANDBACK=HANDBACK, TERMINAL=TERMINAL, **constants)
