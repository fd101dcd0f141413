"""Decides who is this machine's own user, where nobody signs in: a browser here, but no page of another origin.

A peer address on the loopback is not enough. A proxy on this machine forwards strangers; a domain that resolves to
127.0.0.1 lets its pages read (DNS rebinding); any page may send forms and requests without a body here (CSRF).
`visitors.py` and `callers.py` ask. With accounts a user's role decides instead.

Where a proxy of the deployment is the only way in (docker-compose.yml, setting `published_on`), that proxy's published
address must be a loopback. It marks requests that came through other proxies. All other checks stay.
"""

import re

from flask import Request, current_app

from services.machine.addresses import is_loopback

OUR_HOST = re.compile(r"(127\.0\.0\.1|localhost|\[::1\])(:[0-9]{1,5})?", re.IGNORECASE)
FORWARDERS = frozenset(
    {
        "FORWARDED", "VIA", "CLIENT_IP", "TRUE_CLIENT_IP", "FASTLY_CLIENT_IP", "PROXY_CONNECTION", "CDN_LOOP",
        "X_REAL_IP", "X_CLIENT_IP", "X_CLUSTER_CLIENT_IP", "X_PROXYUSER_IP", "X_FORWARDED", "X_ORIGINAL_FORWARDED_FOR",
        "X_ORIGINAL_HOST", "X_REMOTE_ADDR", "X_REMOTE_IP", "X_FORWARD_FOR", "FLY_CLIENT_IP", "X_AZURE_CLIENTIP",
        "X_VARNISH", "NGROK_TRACE_ID", "TAILSCALE_USER_LOGIN", "X_ORIGINAL_URL", "MAX_FORWARDS",
    }
)  # fmt: skip
FORWARDER_PREFIXES = ("X_FORWARDED_", "X_ENVOY_", "CF_", "X_AMZN_", "X_AMZ_CF_", "X_ARR_")
BY_OUR_PROXY = frozenset({"X_FORWARDED_FOR", "X_FORWARDED_PROTO", "X_FORWARDED_HOST", "VIA"})
BODIES = ("application/json", "application/octet-stream")  # a form cannot send them; a foreign page must ask first
SAFE_METHODS = ("GET", "HEAD")

TUNNEL = "the job pages answer this machine only; from another machine use a tunnel: ssh -L 8000:127.0.0.1:8000 HOST"


def foreign_reader(request: Request) -> str:
    """Why this request may come from another machine or from a page of another origin; empty if it does not."""
    published_on = current_app.config["PUBLISHED_ON"]
    if not is_loopback(published_on or request.remote_addr):
        return TUNNEL
    if header := _forwarder(request, but=BY_OUR_PROXY if published_on else frozenset()):
        return f"a proxy forwarded the request ({header}); {TUNNEL}"
    # Browsers speak 1.1 here; proxies that tell nothing of themselves often speak 1.0.
    if (protocol := request.environ.get("SERVER_PROTOCOL")) != "HTTP/1.1":
        return f"the request came by {protocol}, which only proxies speak; {TUNNEL}"
    if not OUR_HOST.fullmatch(request.headers.get("Host", "")):
        return f"open the job pages as http://127.0.0.1 or http://localhost, with the port; {TUNNEL}"
    if request.path.startswith(("/api/", "/v1/")) and not _from_our_page(request):
        return "this API answers to its own page and to programs of this machine, not to pages of other origins"
    return ""


def foreign_writer(request: Request) -> str:
    """Why a request that changes something may come from a page of another origin; empty if it does not."""
    origin = request.headers.get("Origin")
    if origin is not None and origin != f"{request.scheme}://{request.headers['Host']}":
        return f"a page of {origin[:80]} may not change anything here"
    if origin is None and request.headers.get("Sec-Fetch-Site") != "same-origin":
        return f"send `Origin: {request.scheme}://{request.headers['Host']}`, as our own page does"
    if request.method in ("POST", "PUT") and request.mimetype not in BODIES:
        return f"a body has the type {' or '.join(BODIES)}, not {request.mimetype[:80] or 'none'}"
    return ""


def _forwarder(request: Request, but: frozenset[str]) -> str:
    """The header that shows a proxy; empty without one."""
    for variable in request.environ:
        name = variable.removeprefix("HTTP_")
        if name != variable and name not in but and (name in FORWARDERS or name.startswith(FORWARDER_PREFIXES)):
            return name.replace("_", "-").title()
    return ""


def _from_our_page(request: Request) -> bool:
    """Whether a browser says that a page of another origin asks. `none` means its user; a program says nothing."""
    return request.headers.get("Sec-Fetch-Site", "none") in ("same-origin", "none")
