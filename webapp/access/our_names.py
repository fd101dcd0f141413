"""Answers only to names of ours while the web app's address is a loopback; `create_app` puts it around everything.

Any name may be made to resolve to 127.0.0.1. For a browser its pages then have the origin of this server, so they could
use the models of whoever looks at them (DNS rebinding). They cannot hide the name: it is in the Host header. Behind an
address that is no loopback we don't know our names, and everybody may come anyway.

`local_only.py` has the stricter rule of the job pages.
"""

from collections.abc import Callable, Iterable, Mapping
from html import escape
from typing import Any
from urllib.parse import urlsplit

import orjson
from werkzeug.wrappers import Response

from services.errors import Forbidden
from services.machine.addresses import is_loopback
from services.settings import variable_of
from webapp.access.local_only import OUR_HOST

PROBES = ("/healthz", "/readyz", "/health")  # say nothing of anybody, and a probe may use any name of its machine

Wsgi = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]

PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>Not under this name · ChatServer</title>
<h1>Not under this name</h1><p>{reason}</p></html>
"""


def only_our_names(inner: Wsgi, address: str, allowed_origins: Iterable[str]) -> Wsgi:
    """The WSGI app with the check in front; `address` is where a browser reaches the web app."""
    if address.lower() != "localhost" and not is_loopback(address):
        return inner
    names = {urlsplit(origin).hostname for origin in allowed_origins} | {address.lower()}

    def serve(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        host = str(environ.get("HTTP_HOST", ""))
        if OUR_HOST.fullmatch(host) or _name_in(host) in names or environ["PATH_INFO"] in PROBES:
            return inner(environ, start_response)
        return _refusal(host, environ)(environ, start_response)

    return serve


def browser_scheme(environ: Mapping[str, Any]) -> str:
    """What the browser spoke: of a chain of proxies, the first one's word."""
    forwarded = str(environ.get("HTTP_X_FORWARDED_PROTO") or environ["wsgi.url_scheme"])
    return forwarded.split(",")[0].strip().lower()


def _name_in(host: str) -> str:
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def _refusal(host: str, environ: Mapping[str, Any]) -> Response:
    shown = host[:80] or "no name"
    reason = (
        f"this server answers as http://127.0.0.1 or http://localhost, with the port, not as {shown}. If a proxy of "
        f"yours forwards that name, put its origin, such as https://{shown}, into {variable_of('allowed_origins')}"
    )
    error = Forbidden(reason)
    if "text/html" in environ.get("HTTP_ACCEPT", "") and not environ["PATH_INFO"].startswith(("/api/", "/v1/")):
        answer = Response(PAGE.format(reason=escape(reason)), error.http_status, mimetype="text/html")
        answer.headers["Content-Security-Policy"] = "default-src 'none'"
        return answer
    return Response(orjson.dumps({"error": error.as_dict()}), error.http_status, mimetype="application/json")
