"""The API as real clients use it: the official one, LangChain, LlamaIndex, and the examples of docs/api.md.

Each client runs in an environment of its own, which `make test-clients` makes, against a real `chatserver up`.
"""

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from services.models.catalogue import resolve
from services.places import ROOT
from services.serving.trained_models import TrainedModel, TrainedModels
from services.tokens.tokenization import load_tokenizer
from tests.clients.installation import Installation, running_installation
from tests.end_to_end.system import running_system, wait_until
from tests.pipelines.training.runs import write_base

HERE = Path(__file__).parent
PYTHONS = {"openai": ".venv-openai", "frameworks": ".venv-frameworks"}
EXAMPLES = re.findall(r"```(\w+)\n(.*?)```", (ROOT / "docs/api.md").read_text("utf-8"), re.DOTALL)

TRAINS = "fine_tuning.jobs.create"
TRAINING_S = 600.0  # torch alone takes many seconds to be imported on a busy machine


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """The packaged model is `packaged` here; `smollm2-135m`, which the examples ask, is one that repeats them."""
    settings = {"served_name": "packaged", "max_user_requests": 4, "api_keys_required": "true"}
    with running_installation(tmp_path_factory.mktemp("clients"), **settings) as installation:
        installation.repeat("thinker", "--rate", "50", "--chunk", "3", "--reasoning")
        installation.repeat("qwen3", "--rate", "50", "--chunk", "3", "--tools", "hermes")
        installation.repeat("slow", "--rate", "5", "--chunk", "1")
        installation.repeat("smollm2-135m", "--rate", "50", "--chunk", "1000", "--forms", "--logprobs", "top")
        yield installation


@pytest.fixture(scope="module")
def key(installation: Installation) -> str:
    return installation.command("keys", "create", "clients", "--user", "clients").split()[-1]


@pytest.fixture(scope="module")
def url(installation: Installation, key: str) -> str:
    """The address, once all models are there."""
    models = ("packaged", "thinker", "qwen3", "slow", "smollm2-135m")

    def served() -> bool:
        listed = requests.get(f"{installation.url}/v1/models", headers={"Authorization": f"Bearer {key}"}, timeout=30)
        return {each["id"] for each in listed.json()["data"]} == set(models)

    wait_until(served, "the models", 60.0, 0.1)
    return installation.url


@pytest.fixture(scope="module")
def training_system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, TrainedModels]]:
    """A system that trains a random model, `tiny`, in seconds, and serves two at a time of what it trained."""
    folder = tmp_path_factory.mktemp("trains")
    write_base(folder / "base", load_tokenizer(resolve("smollm2-135m")))
    with running_system(folder, slots=2, cache_gib=0.01) as system:
        system.environment.update(HF_HUB_OFFLINE="1", OMP_NUM_THREADS="1")
        base = TrainedModel("tiny", str(folder / "base"), "smollm2-135m", "by hand", 0.0)
        trained = TrainedModels(system.redis, system.keys)
        trained.register(base)
        url = system.web()
        for role in ("beat", "worker", "trainings"):
            system.start("pipelines", role)
        for _ in range(2):
            system.start("workers", "--standby")
        yield url, trained


@pytest.fixture
def training_url(training_system: tuple[str, TrainedModels]) -> Iterator[str]:
    """Its address; any key will do. What a test trained is served no longer, so that the next test's models are."""
    url, trained = training_system
    yield url
    for model in trained.wanted():
        trained.stop_serving(model.name)


def run(command: list[str], stdin: str = "", timeout_s: float = 120, **variables: str) -> str:
    environment = {**os.environ, **variables}
    done = subprocess.run(
        command, input=stdin, capture_output=True, text=True, timeout=timeout_s, env=environment, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def python_of(environment: str) -> str:
    return str(ROOT / PYTHONS[environment] / "bin/python")


@pytest.mark.parametrize(
    ("environment", "program"),
    [
        ("openai", "openai_client"),
        ("openai", "open_responses"),
        ("frameworks", "langchain_client"),
        ("frameworks", "llamaindex_client"),
    ],
)
def test_a_client_is_served(url: str, key: str, environment: str, program: str) -> None:
    said = run([python_of(environment), str(HERE / "programs" / f"{program}.py"), url, key])
    assert said.splitlines()[-1].endswith("right")


@pytest.mark.timeout(TRAINING_S + 120)
def test_the_official_client_trains_a_model_and_asks_it(training_url: str) -> None:
    program = str(HERE / "programs" / "fine_tuning_client.py")
    assert run([python_of("openai"), program, training_url, "any"], timeout_s=TRAINING_S).endswith("right\n")


@pytest.mark.timeout(TRAINING_S + 120)
@pytest.mark.parametrize("example", [n for n, (_, text) in enumerate(EXAMPLES) if TRAINS in text])
def test_an_example_that_trains_runs(training_url: str, example: int) -> None:
    text = EXAMPLES[example][1].replace("http://127.0.0.1:8000", training_url).replace('"smollm2-135m"', '"tiny"')
    assert "Hello" in run([python_of("openai"), "-"], text, timeout_s=TRAINING_S)


@pytest.mark.parametrize("example", [n for n, (_, text) in enumerate(EXAMPLES) if TRAINS not in text])
def test_an_example_of_the_documentation_runs(url: str, key: str, example: int, tmp_path: Path) -> None:
    kind, text = EXAMPLES[example]
    text = text.replace("http://127.0.0.1:8000", url).replace('"local"', f'"{key}"')
    if kind == "sh":
        said = run(["sh", "-e"], text.replace("curl ", f"curl -fsSN -H 'Authorization: Bearer {key}' "))
    elif kind == "js":
        (tmp_path / "node_modules").symlink_to(ROOT / PYTHONS["openai"] / "node_modules")
        (tmp_path / "example.mjs").write_text(text)
        said = run(["node", str(tmp_path / "example.mjs")])
    else:
        said = run([python_of("frameworks" if "langchain" in text else "openai"), "-"], text)
    assert "Hello" in said


def test_there_are_examples_for_each_language() -> None:
    assert {kind for kind, _ in EXAMPLES} == {"python", "sh", "js"}
