"""Puts the subjects of the admin page together: one blueprint for the page, one for its API under `/api/admin`.

`create_app` registers both. Whoever is no administrator gets neither.
"""

from flask import Blueprint, render_template
from redis import Redis

from services.accounts.accounts import Accounts
from services.accounts.api_keys import ApiKeys
from services.chat.dead_letters import DeadLetters
from services.chat.requests import Requests
from services.wire.keys import Keys
from webapp.access import visitors
from webapp.access.stored import Stored
from webapp.admin import api_keys, dead_letters, groups, limits, people, serving, storage
from webapp.admin.storage import Storage


def make_page(flower_url: str) -> Blueprint:
    """Route `/admin`."""
    page = Blueprint("admin", __name__)
    visitors.guard(page, admins=True)

    @page.get("/admin")
    def admin() -> str:
        return render_template("admin.html", flower_url=flower_url)

    return page


def make_api(
    redis: Redis,
    keys: Keys,
    requests: Requests,
    accounts: Accounts | None,
    api: ApiKeys,
    storage_of_all: Storage,
    stored: Stored,
) -> Blueprint:
    """Routes `/api/admin/…`. Without accounts nobody signs in, and the routes of people say so."""
    routes = Blueprint("admin_api", __name__, url_prefix="/api/admin")
    visitors.guard(routes, admins=True)
    serving.add(routes, redis, keys, requests)
    dead_letters.add(routes, DeadLetters(redis, requests))
    people.add(routes, accounts)
    groups.add(routes, accounts)
    limits.add(routes, requests.quotas, accounts, stored)
    api_keys.add(routes, api)
    storage.add(routes, storage_of_all)
    return routes
