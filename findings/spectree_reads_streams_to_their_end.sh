#!/usr/bin/env bash
# spectree 3.0.0 with Flask 3.1.3 and pydantic 2.14.4: a view that is only described (`skip_validation=True`, no model for
# its response) and returns a streamed response is read to its end before the first byte is sent.
#
# Expected: nothing of the response is validated, so it streams as without the decorator.
# Seen:     the generator has ended before the client gets its first part; without the decorator it has given one part
# Our code: the plugin in webapp/api/document.py calls the view and leaves its response alone.
set -euo pipefail
# shellcheck source=findings/_setup.sh
source "$(dirname "$0")/_setup.sh"
install spectree==3.0.0 Flask==3.1.3 pydantic==2.14.4

python - <<'EOF'
import sys

from flask import Flask, Response
from spectree import SpecTree

app, api, made = Flask(__name__), SpecTree("flask"), []


def parts():
    for number in range(3):
        made.append(number)
        yield f"data: {number}\n\n"


@app.get("/plain")
def plain():
    return Response(parts(), mimetype="text/event-stream")


@app.get("/described")
@api.validate(skip_validation=True, tags=["stream"])
def described():
    return Response(parts(), mimetype="text/event-stream")


def made_before_the_first(path):
    """How many parts the view has made when its client has read one."""
    made.clear()
    body = iter(app.test_client().get(path, buffered=False).response)
    next(body)
    return len(made)


found = {path: made_before_the_first(path) for path in ("/plain", "/described")}
print("parts made before the first is read:", found)
if found != {"/plain": 1, "/described": 3}:
    sys.exit("changed: a described view streams")
EOF
