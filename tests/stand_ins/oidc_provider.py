"""A provider of OpenID Connect on a free port, which signs whoever comes in at once. For tests only.

It checks what a client must send (state, PKCE with S256, its secret, the same address to come back to), and can answer
wrongly: `lie` changes the claims of the next identity token.
"""

import base64
import hashlib
import secrets
import threading
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import urlencode

from flask import Flask, Response, jsonify, redirect, request
from joserfc import jwt
from joserfc.jwk import RSAKey
from werkzeug.serving import make_server
from werkzeug.wrappers import Response as AnyResponse

CLIENT, SECRET = "chatserver", "the secret of the client"


class Provider:
    """`issuer` is its address. `claims` is who signs in."""

    def __init__(self) -> None:
        self.claims: dict[str, Any] = {"sub": "1", "preferred_username": "ada", "name": "Ada L."}
        self.lie: Callable[[dict[str, Any]], object] = lambda claims: None
        self.key = RSAKey.generate_key(2048, parameters={"kid": "1"})
        self.signs_with = self.key
        self.asked: list[dict[str, str]] = []  # the queries with which browsers came
        self._codes: dict[str, dict[str, str]] = {}
        self._server = make_server("127.0.0.1", 0, self._app(), threaded=True)
        self.issuer = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _app(self) -> Flask:
        app = Flask("provider")
        app.get("/.well-known/openid-configuration")(self._metadata)
        app.get("/authorize")(self._authorize)
        app.post("/token")(self._token)
        app.get("/jwks")(lambda: jsonify(keys=[self.key.as_dict(private=False)]))
        return app

    def _metadata(self) -> Response:
        paths = {"authorization_endpoint": "/authorize", "token_endpoint": "/token", "jwks_uri": "/jwks"}
        return jsonify(
            issuer=self.issuer,
            id_token_signing_alg_values_supported=["RS256"],
            **{name: self.issuer + path for name, path in paths.items()},
        )

    def _authorize(self) -> AnyResponse:
        query = request.args.to_dict()
        assert query["client_id"] == CLIENT and query["response_type"] == "code" and "openid" in query["scope"]
        assert query["code_challenge_method"] == "S256" and query["state"] and query["nonce"]
        self.asked.append(query)
        code = secrets.token_hex(8)
        self._codes[code] = query
        return redirect(f"{query['redirect_uri']}?{urlencode({'code': code, 'state': query['state']})}")

    def _token(self) -> Response | tuple[Response, int]:
        asked = self._codes.pop(request.form.get("code", ""), None)
        auth = request.authorization
        verifier = hashlib.sha256(request.form.get("code_verifier", "").encode()).digest()
        challenge = base64.urlsafe_b64encode(verifier).rstrip(b"=").decode()
        if (
            asked is None
            or auth is None
            or (auth.username, auth.password) != (CLIENT, SECRET)
            or challenge != asked["code_challenge"]
            or request.form["redirect_uri"] != asked["redirect_uri"]
        ):
            return jsonify(error="invalid_grant"), 400
        now_s = round(time.time())
        claims = {"iss": self.issuer, "aud": CLIENT, "iat": now_s, "exp": now_s + 60, "nonce": asked["nonce"]}
        claims |= self.claims
        self.lie(claims)
        token = jwt.encode({"alg": "RS256", "kid": "1"}, claims, self.signs_with)
        return jsonify(access_token="a", token_type="Bearer", id_token=token)
