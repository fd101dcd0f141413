"""Settings: one frozen object from the environment; what is mistyped stops the start."""

import re
from pathlib import Path

import pytest
from pydantic import ValidationError

from services.errors import ConfigurationError
from services.settings import Settings, load_right_settings, load_settings, variable_of


def test_an_empty_environment_gives_the_defaults() -> None:
    settings = load_settings({})
    assert settings == Settings()
    assert settings.redis_url == "redis://127.0.0.1:6379/0"


def test_every_field_is_read_from_its_variable() -> None:
    settings = load_settings(
        {"REDIS_URL": "redis://10.0.0.1:1/2", "CHATSERVER_SLOTS": "3", "CHATSERVER_STATE_DIR": "/tmp/x", "HOME": "/x"}
    )
    assert settings.redis_url == "redis://10.0.0.1:1/2"
    assert settings.slots == 3
    assert settings.state_dir == Path("/tmp/x")


def test_an_unknown_variable_stops_the_start_and_names_the_nearest() -> None:
    with pytest.raises(ConfigurationError, match=r"CHATSERVER_SLOT; did you mean CHATSERVER_SLOTS\?"):
        load_settings({"CHATSERVER_SLOT": "3"})


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("CHATSERVER_SLOTS", "0"),
        ("CHATSERVER_SLOTS", "many"),
        ("CHATSERVER_PORT", "70000"),
        ("CHATSERVER_LEASE_S", "0"),
        ("CHATSERVER_NAMESPACE", "a{b}"),
        ("CHATSERVER_ENGINE", "magic"),
        ("CHATSERVER_USER_TOKENS_PER_DAY", "1000000000000001"),
        ("CHATSERVER_LOG_LEVEL", "LOUD"),
    ],
)
def test_a_value_out_of_range_is_named_with_its_variable(variable: str, value: str) -> None:
    with pytest.raises(ConfigurationError, match=re.escape(f"{variable}={value!r}")):
        load_settings({variable: value})


def test_a_given_option_wins_over_the_environment_and_a_missing_one_does_not() -> None:
    settings = load_settings({"CHATSERVER_SLOTS": "3", "CHATSERVER_MODEL": "a"}, slots=5, model=None)
    assert (settings.slots, settings.model) == (5, "a")


def test_an_empty_variable_means_the_default() -> None:
    assert load_settings({"CHATSERVER_SLOTS": ""}).slots == Settings().slots


def test_settings_are_frozen() -> None:
    with pytest.raises(ValidationError):
        load_settings({}).slots = 3  # type: ignore[misc]


def test_every_setting_says_what_it_is() -> None:
    for name, field in Settings.model_fields.items():
        assert field.description, variable_of(name)


def test_a_secret_can_stand_in_a_file(tmp_path: Path) -> None:
    (tmp_path / "url").write_text("redis://:secret@redis:6379/0\n")
    (tmp_path / "key").write_text("k" * 64)
    settings = load_settings(
        {"REDIS_URL_FILE": str(tmp_path / "url"), "CHATSERVER_SECRET_KEY_FILE": str(tmp_path / "key")}
    )
    assert (settings.redis_url, settings.secret_key) == ("redis://:secret@redis:6379/0", "k" * 64)


@pytest.mark.parametrize(
    ("content", "said"),
    [(None, "No such file or directory"), ("", "is empty"), ("\n", "is empty"), (b"\xff", "not text")],
)
def test_a_file_without_a_value_is_named_with_its_variable(
    tmp_path: Path, content: str | bytes | None, said: str
) -> None:
    path = tmp_path / "url"
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ConfigurationError, match=re.escape(f"REDIS_URL_FILE={str(path)!r}") + f".*{said}"):
        load_settings({"REDIS_URL_FILE": str(path)})


def test_a_value_in_a_variable_and_in_a_file_is_one_too_many(tmp_path: Path) -> None:
    environment = {"REDIS_URL": "redis://a", "REDIS_URL_FILE": str(tmp_path / "url")}
    with pytest.raises(ConfigurationError, match="REDIS_URL_FILE and REDIS_URL are both set"):
        load_settings(environment)
    settings, errors = load_right_settings(environment)
    assert settings.redis_url == "redis://a" and len(errors) == 1


def test_what_is_wrong_with_each_variable_is_told_and_the_others_are_kept() -> None:
    """The doctor goes on with what is right."""
    wrong = {"CHATSERVER_SLOTZ": "3", "CHATSERVER_PORT": "x", "CHATSERVER_LEASE_S": "0.1"}
    settings, errors = load_right_settings({**wrong, "CHATSERVER_SLOTS": "3", "REDIS_URL": "redis://h", "PATH": "/bin"})
    assert settings == Settings(slots=3, redis_url="redis://h")
    assert len(errors) == 3 and all(any(name in error.message for error in errors) for name in wrong)
