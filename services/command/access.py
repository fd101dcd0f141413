"""Finds Redis, the user and the model, for the commands that talk to Redis."""

import getpass
import os
import re
from typing import TYPE_CHECKING, Any

from services.errors import UnknownModel
from services.settings import Settings, load_settings

WEB_PORT = "web_port"  # file in the state folder: where the web app of the last `chatserver up` listens

if TYPE_CHECKING:
    from services.serving.registry import Registry


def command_settings(**options: Any) -> Settings:
    """Settings of a command. Without REDIS_URL it uses the server of a `chatserver up` over the same state folder."""
    return beside_running(load_settings(**options))


def beside_running(settings: Settings) -> Settings:
    """These settings; without a chosen server, with that of a `chatserver up` over the same state folder, and its port.

    A port that was chosen stays.
    """
    if "redis_url" in settings.model_fields_set:
        return settings
    from services.connection.embedded import running_url

    url = running_url(settings.state_dir)
    if not url:
        return settings
    return settings.model_copy(update={"redis_url": url, **_port_of_up(settings)})


def _port_of_up(settings: Settings) -> dict[str, int]:
    if "port" in settings.model_fields_set:
        return {}
    try:
        return {"port": int((settings.state_dir / WEB_PORT).read_text())}
    except (OSError, ValueError):  # the page of that `up` never answered
        return {}


def user_id() -> str:
    """`cli-` and the operating system's user name, with characters that a key may have."""
    try:
        name = getpass.getuser()
    except (OSError, KeyError):  # a container may run under a number without a name
        name = str(os.getuid())
    return "cli-" + re.sub(r"[^A-Za-z0-9._-]", "-", name)[:100]


def choose_model(registry: "Registry", wanted: str | None) -> str:
    """The chosen model, else the first of the registry: its rule is the page's, too."""
    if wanted:
        return wanted
    models = registry.models()
    if not models:
        raise UnknownModel("no worker serves a model yet; start a worker with `chatserver worker` or `chatserver up`")
    return models[0].name
