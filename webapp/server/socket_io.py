"""Flask-SocketIO, for all who import it here: without the libraries that it loads where they are installed.

Socket.IO and Engine.IO import what any of their clients, servers and message queues may use. These three are a seventh
of the time of a web process's start, and nobody here uses them.
"""

import sys
from types import ModuleType
from typing import cast

UNUSED = ("aiohttp", "tornado", "valkey")

_hidden = [name for name in UNUSED if name not in sys.modules]
cast("dict[str, ModuleType | None]", sys.modules).update(dict.fromkeys(_hidden))  # as if they were not installed
try:
    from flask_socketio import ConnectionRefusedError, SocketIO
finally:
    for name in _hidden:
        del sys.modules[name]

__all__ = ["ConnectionRefusedError", "SocketIO"]
