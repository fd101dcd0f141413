"""`python -m webapp` with short times and few connections, so that a test need not wait for the real ones."""

import webapp.__main__  # noqa: F401  # patches, so it comes first

# isort: split
import runpy

from webapp.server import http_server, transport

http_server.IDLE_S = 0.5
http_server.REQUEST_S = 1.0
http_server.SEND_S = 1.0
http_server.MAX_CONNECTIONS = 20
transport.JOIN_S = 1.0
transport.MAX_STRANGERS = 3

runpy.run_module("webapp", run_name="__main__")
