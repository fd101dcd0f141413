"""Who looks at a page or calls an API of ours from it: every blueprint but `/v1` and the probes is guarded here.

    guard(blueprint)                 # whoever has our cookie
    guard(blueprint, admins=True)    # without accounts: a browser on this machine, as `local_only` tells

`current_user()` is the owner of what a route makes and finds.
"""

from flask import Blueprint, Response, request, session

from services.errors import Forbidden, Unauthorized
from webapp.access import local_only


def current_user() -> str:
    """The opaque name of who asks. Raises Unauthorized for who has no cookie of ours."""
    if "user" not in session:
        raise Unauthorized("this request has no session cookie; load the page or /api/session first")
    return str(session["user"])


def is_admin() -> bool:
    """Whether who asks may see and change what belongs to nobody: jobs, workers, users."""
    return not local_only.foreign_reader(request)


def guard(blueprint: Blueprint, *, admins: bool = False) -> None:
    """Refuse strangers and writes of foreign pages, and let no cache keep an answer."""

    @blueprint.before_request
    def refuse() -> None:
        current_user()
        if admins and (reason := local_only.foreign_reader(request)):
            raise Forbidden(reason)
        if request.method not in local_only.SAFE_METHODS and (reason := local_only.foreign_writer(request)):
            raise Forbidden(reason)

    @blueprint.after_request
    def fresh(response: Response) -> Response:
        response.headers.setdefault("Cache-Control", "private, no-store")
        response.headers.setdefault("Cross-Origin-Resource-Policy", "same-origin")
        return response
