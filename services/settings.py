"""The only module that reads the environment. A `__main__` or a command makes the settings once and passes them on.

Every variable is `CHATSERVER_` plus the field's name in capitals, except `REDIS_URL` and `DATABASE_URL`. An unknown
`CHATSERVER_*` variable stops the program, and the error names the nearest valid one: a mistyped limit must not silently
be the default. A secret can be in a file instead: `REDIS_URL_FILE`, `DATABASE_URL_FILE`, `CHATSERVER_SECRET_KEY_FILE`,
`CHATSERVER_JOB_KEY_FILE`, `CHATSERVER_FLOWER_LOGIN_FILE` and `CHATSERVER_OIDC_CLIENT_SECRET_FILE` name such files.
"""

import difflib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from services.engines import NAMES
from services.errors import ConfigurationError
from services.field_errors import in_words
from services.places import RECIPES_DIR

PREFIX = "CHATSERVER_"
BARE = ("redis_url", "database_url")  # as every platform names them
FILES = {  # variable → what its file holds
    "REDIS_URL_FILE": "redis_url",
    "CHATSERVER_SECRET_KEY_FILE": "secret_key",
    "CHATSERVER_JOB_KEY_FILE": "job_key",
    "CHATSERVER_FLOWER_LOGIN_FILE": "flower_login",
    "DATABASE_URL_FILE": "database_url",
    "CHATSERVER_OIDC_CLIENT_SECRET_FILE": "oidc_client_secret",
}


class Settings(BaseModel):
    """Frozen settings. Times are seconds, sizes are bytes or characters as named."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    redis_url: str = Field("redis://127.0.0.1:6379/0", description="URL of Redis; docs/redis.md lists its forms.")
    namespace: str = Field("chatserver", pattern=r"^[A-Za-z0-9._-]{1,64}$", description="Prefix of every Redis key.")
    state_dir: Path = Field(Path(".chatserver"), description="Folder of caches, logs and the embedded Redis.")

    model: str = Field("smollm2-135m", description="Model that a worker serves: name, folder, GGUF or hub id.")
    served_name: str = Field("", description="Name under which clients ask for the model; empty: derived from it.")
    engine: str = Field("auto", pattern=f"^({'|'.join(NAMES)})$", description="Engine of a worker.")
    dtype: str = Field("auto", pattern="^(auto|fp32|bf16)$", description="Number type of the transformers engine.")
    repeatable: bool = Field(False, description="Greedy answers do not depend on other requests; slower.")
    chat_template: str = Field("", description="Chat template by name (docs/models.md): vicuna-v1.1, chatml, …")
    thinking: bool | None = Field(
        None, description="Whether models with a switch for thinking think, unless a request says it; empty: their way."
    )
    slots: int = Field(16, ge=1, le=1024, description="Requests that one worker runs at once.")
    context_tokens: int = Field(0, ge=0, description="Most tokens of prompt + answer; 0: what the model allows.")
    tensor_parallel: int = Field(
        0, ge=0, le=64, description="GPUs over which the vllm engine spreads a model; 0: all that it sees."
    )
    cache_gib: float = Field(1.0, gt=0, description="Size of a CPU engine's key/value cache, GiB.")
    flush_s: float = Field(0.05, ge=0, le=1, description="Longest time until a worker writes a token to Redis.")
    lease_s: float = Field(
        3.0,
        ge=1.5,
        le=60,
        description="A worker that is silent for this long loses its requests; same on all machines.",
    )
    stall_s: float = Field(60.0, gt=0, description="An engine without a step for this long counts as hung.")
    extra_workers: int = Field(
        1, ge=0, le=64, description="Most workers that `chatserver up` starts for trained models, beside its own."
    )
    drain_s: float = Field(5.0, ge=0, description="Time that a worker has to hand its requests back on SIGTERM.")

    max_queue: int = Field(1000, ge=1, description="Most requests of a model, waiting and running; more get `busy`.")
    max_user_requests: int = Field(64, ge=1, description="Most requests of one user for one model.")
    max_address_requests: int = Field(
        256, ge=1, description="Most requests of one internet address for one model, whoever asks there."
    )
    max_queue_mib: int = Field(256, ge=1, description="Most MiB of text in all requests of a model.")
    max_user_mib: int = Field(16, ge=1, description="Most MiB of text in all requests of one user for one model.")
    user_tokens_per_day: int = Field(
        0, ge=0, description="Tokens that a user may use in a day of UTC, unless `chatserver limits` says it; 0: any."
    )
    user_in_flight: int = Field(
        0, ge=0, description="Most requests of one user over all models, unless `chatserver limits` says it; 0: any."
    )
    max_tries: int = Field(3, ge=1, description="Workers that may die on a request before it ends as `poison`.")
    queue_deadline_s: float = Field(900.0, gt=0, le=3000, description="A request that waits longer ends: `expired`.")
    answer_ttl_s: int = Field(86_400, ge=3600, description="How long Redis keeps an answer.")
    max_message_chars: int = Field(200_000, ge=1, description="Most characters in all messages of a request.")

    moderation_url: str = Field("", description="HTTP endpoint that says whether a request may be queued; empty: none.")
    moderation_timeout_s: float = Field(2.0, ge=0.1, le=30, description="Longest wait for a verdict of the moderation.")
    moderation_outage: Literal["pass", "flag", "refuse"] = Field(
        "refuse", description="What happens to a request without a verdict: it passes, is flagged, or is refused."
    )

    host: str = Field("127.0.0.1", description="Address on which the web app (or Flower) listens.")
    port: int = Field(8000, ge=0, le=65535, description="Port of the web app (or Flower); 0 takes a free one.")
    published_on: str = Field(
        "", description="Address on which this deployment's own proxy publishes the web app; empty: no proxy."
    )
    secret_key: str = Field("", description="Key that signs cookies; empty: the state folder keeps one.")
    accounts: str = Field(
        "",
        pattern="^(on|off)?$",
        description="on: people sign in. Empty is off, and refuses an address that others may reach.",
    )
    oidc_issuer: str = Field(
        "", pattern="^(https?://.+)?$", description="URL of an OpenID Connect provider by which users sign in, too."
    )
    oidc_client_id: str = Field("", description="What the provider calls this installation.")
    oidc_client_secret: str = Field("", description="What the provider knows this installation by.")
    oidc_sign_up: bool = Field(False, description="Whether whom the provider knows, and we do not, gets an account.")
    allowed_origins: str = Field("", description="Other origins whose pages may come here; commas between.")
    api_keys_required: bool = Field(False, description="Whether programs of this machine need a key for /v1, too.")
    window_chars: int = Field(16_384, ge=256, description="Text that a client may leave unacknowledged before a pause.")
    max_user_sockets: int = Field(64, ge=1, description="Most sockets of one user to one web process.")
    max_unsent_mib: int = Field(
        64, ge=4, description="Most MiB that wait in one web process for slow clients; then the slowest is closed."
    )
    max_unread_mib: int = Field(
        64, ge=4, description="Most MiB that clients have sent to one web process and it has not served."
    )
    max_address_sockets: int = Field(
        512, ge=1, description="Most sockets of one internet address to one web process, whoever opens them."
    )
    max_user_submits_per_minute: int = Field(
        3000, ge=1, description="Most submits of one user in a minute to one web process."
    )
    max_address_submits_per_minute: int = Field(
        6000, ge=1, description="Most submits of one internet address in a minute to one web process."
    )
    relay_interval_s: float = Field(0.02, ge=0.001, le=1, description="Shortest time between two sends to a socket.")

    broker_url: str = Field("", description="URL of the Redis for Celery; empty: REDIS_URL.")
    flower_login: str = Field("", pattern="^([^:]+:.+)?$", description="USER:PASSWORD of Flower's page.")
    flower_url: str = Field(
        "", pattern="^(https?://.+)?$", description="Address of Flower's page; the admin page links to it."
    )
    job_key: str = Field("", description="Key that signs jobs, the same everywhere; empty: the state folder keeps one.")
    input_roots: str = Field("", description="Folders that jobs may read; commas between; empty: any.")
    input_schemes: str = Field("", description="Schemes of URLs that jobs may read; commas between; empty: any.")
    clean_processes: int = Field(0, ge=0, le=256, description="Processes that clean; 0: one per CPU, 16 at most.")
    recipes_dir: Path = Field(RECIPES_DIR, description="Folder of the recipes that the job page offers.")
    max_upload_mib: int = Field(
        2048, ge=1, description="Most MiB of the files of one job, and of one file of /v1/files."
    )
    max_user_files: int = Field(1000, ge=1, description="Most files of /v1/files that one user keeps.")
    max_user_files_mib: int = Field(10240, ge=1, description="Most MiB of the files of /v1/files of one user.")
    max_user_batches: int = Field(100, ge=1, description="Most batches of one user that have not ended.")

    database_url: str = Field(
        "", description="URL of the database, postgresql://… or sqlite:///…; empty: SQLite in the state folder."
    )

    log_format: str = Field("human", pattern="^(human|json)$", description="Format of log lines.")
    log_level: str = Field(
        "INFO", pattern="^(DEBUG|INFO|WARNING|ERROR)$", description="Least severe log line that is written."
    )


def variable_of(field: str) -> str:
    """The environment variable that sets a field."""
    return field.upper() if field in BARE else PREFIX + field.upper()


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
        raise ConfigurationError(f"{variable_of(name)}={first.get('input')!r}: {in_words(first)}") from None


def _from_files(environment: Mapping[str, str], given: Mapping[str, Any]) -> dict[str, str]:
    """The values that files hold, without white space around them."""
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
    """Settings from the valid variables, and an error for each invalid one."""
    environment = os.environ if environment is None else environment
    right: dict[str, str] = {}
    errors: list[ConfigurationError] = []
    for variable in sorted(environment):
        if variable.startswith(PREFIX) or variable in map(variable_of, BARE) or variable in FILES:
            try:
                load_settings({**right, variable: environment[variable]})
            except ConfigurationError as error:
                errors.append(error)
            else:
                right[variable] = environment[variable]
    return load_settings(right), errors
