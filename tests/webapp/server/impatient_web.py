"""`python -m webapp` with short times and few connections, so that a test need not wait for the real ones."""

from gevent import monkey

monkey.patch_all()

import runpy  # noqa: E402

from webapp.server import http_server, transport  # noqa: E402

http_server.IDLE_S = 0.5
http_server.REQUEST_S = 1.0
http_server.SEND_S = 1.0
http_server.MAX_CONNECTIONS = 20
transport.JOIN_S = 1.0
transport.MAX_STRANGERS = 3

runpy.run_module("webapp", run_name="__main__")
