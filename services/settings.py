"""The one place that reads the environment. Made once in a `__main__` or command, then passed in as plain values.

Every variable is `CHATSERVER_` plus the field's name in capitals, except `REDIS_URL`. An unknown `CHATSERVER_*` name
stops the start and names the nearest valid one: a mistyped limit must not silently be the default. What others who may
list the environment must not see can be in a file: `REDIS_URL_FILE`, `CHATSERVER_SECRET_KEY_FILE` and one more below.
"""

import difflib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from services.engines import NAMES
from services.errors import ConfigurationError
from services.places import RECIPES_DIR

PREFIX = "CHATSERVER_"
FILES = {  # variable → what its file holds
    "REDIS_URL_FILE": "redis_url",
    "CHATSERVER_SECRET_KEY_FILE": "secret_key",
    "CHATSERVER_FLOWER_LOGIN_FILE": "flower_login",
}


class Settings(BaseModel):
    """Frozen settings. Times are seconds, sizes are bytes or characters as named."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    redis_url: str = Field("redis://127.0.0.1:6379/0", description="Where Redis answers (REDIS_URL): docs/redis.md.")
    namespace: str = Field("chatserver", pattern=r"^[A-Za-z0-9._-]{1,64}$", description="Prefix of every key.")
    state_dir: Path = Field(Path(".chatserver"), description="Where this machine keeps caches, logs, embedded data.")

    model: str = Field("smollm2-135m", description="The model a worker serves: a catalogue name, folder, GGUF, hub id.")
    served_name: str = Field("", description="The name under which it is served; empty: derived from `model`.")
    engine: str = Field("auto", pattern=f"^({'|'.join(NAMES)})$", description="Engine adapter.")
    dtype: str = Field("auto", pattern="^(auto|fp32|bf16)$", description="Precision of the transformers engine.")
    repeatable: bool = Field(False, description="Greedy answers alike in any company, at a price: docs/protocol.md.")
    chat_template: str = Field("", description="Named template for models without one: vicuna-v1.1, alpaca, plain.")
    slots: int = Field(16, ge=1, le=1024, description="Requests that one worker runs at once.")
    context_tokens: int = Field(0, ge=0, description="Upper bound of prompt + answer; 0: what the model allows.")
    cache_gib: float = Field(1.0, gt=0, description="Key/value cache of a CPU engine, GiB.")
    flush_s: float = Field(0.05, ge=0, le=1, description="Tokens of one request are journalled at most this late.")
    lease_s: float = Field(3.0, ge=1.5, le=60, description="Silence that costs a worker its requests; same on all.")
    stall_s: float = Field(60.0, gt=0, description="An engine without a step for this long counts as hung.")
    extra_workers: int = Field(
        1, ge=0, le=64, description="Most workers that `chatserver up` adds to its own for trained models to be served."
    )
    drain_s: float = Field(5.0, ge=0, description="On SIGTERM: time to hand the running requests back.")

    max_queue: int = Field(1000, ge=1, description="Requests per model, waiting and running, before `busy`.")
    max_user_requests: int = Field(64, ge=1, description="Requests one user may have in flight per model.")
    max_tries: int = Field(3, ge=1, description="Deaths without progress before a request is given up as poison.")
    queue_deadline_s: float = Field(900.0, gt=0, le=3000, description="A request that waits longer ends as `expired`.")
    answer_ttl_s: int = Field(86_400, ge=3600, description="How long a request's state and journal are kept.")
    max_message_chars: int = Field(200_000, ge=1, description="Upper bound of all message text in one request.")

    host: str = Field("127.0.0.1", description="Address on which the web app (or Flower) listens.")
    port: int = Field(8000, ge=0, le=65535, description="Port of the web app (or Flower); 0 takes a free one.")
    published_on: str = Field(
        "", description="Where a proxy of this deployment publishes the web app; empty: no proxy."
    )
    secret_key: str = Field("", description="Signs the browser's cookie; empty: made once, kept in the state folder.")
    allowed_origins: str = Field("", description="Comma-separated further origins whose pages may open a socket.")
    window_chars: int = Field(16_384, ge=256, description="Unacknowledged text per answer before a client is paused.")
    relay_interval_s: float = Field(0.02, ge=0.001, le=1, description="The relay sends to a socket at most this often.")

    broker_url: str = Field("", description="Celery's Redis, if it shall be another one than REDIS_URL.")
    flower_login: str = Field("", pattern="^([^:]+:.+)?$", description="USER:PASSWORD of Flower's page.")
    clean_processes: int = Field(0, ge=0, le=256, description="Processes that clean; 0: one for each CPU, at most 16.")
    recipes_dir: Path = Field(RECIPES_DIR, description="Folder of the recipes that the job page offers.")
    max_upload_mib: int = Field(2048, ge=1, description="Upper bound of the files that the job page takes for one job.")

    log_format: str = Field("human", pattern="^(human|json)$", description="How log lines are written.")
    log_level: str = Field("INFO", pattern="^(DEBUG|INFO|WARNING|ERROR)$", description="Least severe line written.")


def variable_of(field: str) -> str:
    """The environment variable that sets a field."""
    return "REDIS_URL" if field == "redis_url" else PREFIX + field.upper()


def load_settings(environment: Mapping[str, str] | None = None, **overrides: Any) -> Settings:
    """Settings from the environment; `overrides` (command-line options that were given) win over it.

    Raises ConfigurationError for an unknown `CHATSERVER_*` variable, a value out of range or a file that is not there.
    """
    environment = os.environ if environment is None else environment
    fields = {variable_of(name): name for name in Settings.model_fields}
    for variable in environment:
        if variable.startswith(PREFIX) and variable not in fields and variable not in FILES:
            bare = {name.removeprefix(PREFIX): name for name in [*fields, *FILES]}
            near = bare[difflib.get_close_matches(variable.removeprefix(PREFIX), bare, n=1, cutoff=0.0)[0]]
            raise ConfigurationError(f"unknown setting {variable}; did you mean {near}? Unset it or rename it.")
    values: dict[str, Any] = {name: environment[v] for v, name in fields.items() if environment.get(v)}
    values.update(_from_files(environment, values))
    values.update({name: value for name, value in overrides.items() if value is not None})
    try:
        return Settings(**values)
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0])
        raise ConfigurationError(f"{variable_of(name)}={first.get('input')!r}: {first['msg']}") from None


def _from_files(environment: Mapping[str, str], given: Mapping[str, Any]) -> dict[str, str]:
    """What stands in files, each without its last line's end."""
    found = {}
    for variable, field in FILES.items():
        path = environment.get(variable)
        if path and field in given:
            raise ConfigurationError(f"{variable} and {variable_of(field)} are both set; unset one of them")
        if path:
            found[field] = _content(variable, Path(path))
    return found


def _content(variable: str, path: Path) -> str:
    try:
        content = path.read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not text"
        raise ConfigurationError(f"{variable}={str(path)!r} cannot be read: {reason}") from None
    if not content:
        raise ConfigurationError(f"{variable}={str(path)!r} is empty; write the value into it")
    return content


def load_right_settings(
    environment: Mapping[str, str] | None = None,
) -> tuple[Settings, list[ConfigurationError]]:
    """Settings from the variables that are right alone, and what is wrong with each of the others."""
    environment = os.environ if environment is None else environment
    right: dict[str, str] = {}
    errors: list[ConfigurationError] = []
    for variable in sorted(environment):
        if variable.startswith(PREFIX) or variable == variable_of("redis_url") or variable in FILES:
            try:
                load_settings({**right, variable: environment[variable]})
            except ConfigurationError as error:
                errors.append(error)
            else:
                right[variable] = environment[variable]
    return load_settings(right), errors
