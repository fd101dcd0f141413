"""A browser for tests of a web app whose users sign in: it keeps cookies and sends forms as our pages have them."""

import re
from typing import Any

from flask.testing import FlaskClient
from werkzeug.test import TestResponse

HERE = "http://127.0.0.1:8000"
OURS = {"Origin": HERE}
PASSWORD = "correct horse battery"


class Visitor:
    """One browser."""

    def __init__(self, client: FlaskClient, address: str = "127.0.0.1") -> None:
        self.client = client
        self.client.environ_base["REMOTE_ADDR"] = address

    def get(self, path: str, **more: Any) -> TestResponse:
        return self.client.get(path, base_url=HERE, **more)

    def token(self, path: str = "/sign-in") -> str:
        """The token that the page at this path gives to its forms and scripts."""
        found = re.search(r'name="csrf[-_]token" (?:value|content)="([^"]+)"', self.get(path).text)
        assert found, f"{path} has no token"
        return found[1]

    def submit(self, path: str, page: str = "", **fields: str) -> TestResponse:
        """Send a form of the page (by default that of the form's own path)."""
        data = {"csrf_token": self.token(page or path), **fields}
        return self.client.post(path, base_url=HERE, data=data, headers=OURS)

    def send(self, path: str, body: object, method: str = "POST", **headers: str) -> TestResponse:
        """What a page's script sends."""
        sent = {**OURS, "X-CSRF-Token": self.token("/account"), **headers}
        return self.client.open(path, method=method, base_url=HERE, json=body, headers=sent)

    def sign_in(self, name: str, password: str = PASSWORD, **fields: str) -> TestResponse:
        return self.submit("/sign-in", name=name, password=password, **fields)

    @property
    def cookie(self) -> str:
        found = self.client.get_cookie("chatserver", domain="127.0.0.1")
        return found.value if found else ""
