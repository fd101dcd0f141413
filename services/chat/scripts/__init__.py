"""The Lua scripts of requests and queues, and what they are told of the wire. No Python besides the loader."""

from services.connection.scripts import Constant, Script
from services.wire.keys import GROUP, HANDBACK, VERSION
from services.wire.messages import TERMINAL


def script(name: str, **constants: Constant) -> Script:
    """`constants`: what only this one is told."""
    return Script(f"chat/{name}", VERSION=VERSION, GROUP=GROUP, HANDBACK=HANDBACK, TERMINAL=TERMINAL, **constants)
