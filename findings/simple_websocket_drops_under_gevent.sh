#!/usr/bin/env bash
# simple-websocket 1.1.0 under gevent 26.9.0: `Server.send` gives a frame to the socket once and ignores how much of it the
# socket took. Gevent's sockets take what fits, so a client that reads slowly gets the begin of a large frame and never
# the rest, while the sender is told that all went well.
#
# Expected: send() returns once the whole frame is handed over, or raises.
# Seen:     8,000,000 bytes and a second message sent without an error; the client gets about 4 MB and then nothing
# Our code: a WebSocket of our own under Engine.IO, which writes all of a frame or ends the connection.
set -euo pipefail
# shellcheck source=findings/_setup.sh
source "$(dirname "$0")/_setup.sh"
install simple-websocket==1.1.0 gevent==26.9.0

python - <<'EOF'
from gevent import monkey

monkey.patch_all()

import socket
import sys
import time

import simple_websocket
from gevent.pywsgi import WSGIServer

SIZE = 8_000_000
sender = []


def application(environ, start_response):
    websocket = simple_websocket.Server(environ)
    try:
        websocket.send("x" * SIZE)
        websocket.send("the end")
        sender.append("sent both messages without an error")
    except Exception as error:
        sender.append(repr(error))
    time.sleep(30)
    return []


server = WSGIServer(("127.0.0.1", 0), application, log=None)
server.start()
client = socket.create_connection(("127.0.0.1", server.server_port), timeout=3)
head = ("GET / HTTP/1.1", "Host: localhost", "Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13")
client.sendall("\r\n".join([*head, "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==", "", ""]).encode())
time.sleep(1)  # a client that is busy for a moment
received = 0
try:
    while data := client.recv(1 << 20):
        received += len(data)
except TimeoutError:
    pass
print(f"the sender {sender}; the client got {received:,} of {SIZE:,} bytes, then nothing for 3 s")
if received >= SIZE or "without" not in str(sender):
    sys.exit("changed: the whole frame arrives, or the sender is told")
EOF
