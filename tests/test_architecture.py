"""The walls of the house: each folder is a room with one subject, and imports flow one way."""

import ast
import inspect
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.places import ROOT
from services.wire.keys import Keys

# Room by room, from the cellar to the roof: a room imports what stands on the lines before its own, nothing beside it.
# A module at the top of its package is a room of its own.
SERVICES = (
    ("engines", "errors", "field_errors", "logs", "places"),
    ("grammar",),
    ("machine", "wire"),
    ("settings",),
    ("connection", "database"),
    ("program", "chat", "models", "accounts"),
    ("tokens", "responses", "conversations"),
    ("serving", "openai", "arena"),
    ("jobs",),
    ("judgements",),
    ("doctor",),
    ("command",),
)
WEBAPP = (
    ("server",),
    ("access",),
    ("chat", "jobs", "api", "accounts", "admin", "conversations", "arena"),
    ("errors",),
    ("application",),
    ("__main__",),
)
PIPELINES = (
    ("records", "html"),
    ("text", "formats"),
    ("steps",),
    ("cleaning", "training", "launching", "batches"),
    ("celery",),
    ("command", "__main__"),
)
PACKAGES = {"services": SERVICES, "workers": (("*",),), "webapp": WEBAPP, "pipelines": PIPELINES}
ROOFS = {"pipelines.command": {"services.command"}}  # a command may run as the command that it is part of
HEAVY = ("torch", "transformers", "tokenizers", "openvino", "openvino_genai", "numpy")
LOADS_TORCH = {ROOT / "pipelines/training/trainer.py"}  # subclasses TRL's trainer; imported by who trains
RUN_BY_ALEMBIC = {ROOT / "services/database/migrations/env.py"}
OF_AN_EXTRA = {ROOT / "pipelines/cleaning/datatrove_blocks.py"}  # subclasses blocks of datatrove


def sources(package: str) -> list[Path]:
    return sorted(path for path in (ROOT / package).rglob("*.py") if "node_modules" not in path.parts)


def room_of(module: str) -> str:
    """`services.chat.queue` → `services.chat`; a package without rooms is one."""
    package, _, rest = module.partition(".")
    if PACKAGES.get(package) == (("*",),):
        return package
    return f"{package}.{rest.partition('.')[0]}" if rest else package


def imported_by(path: Path) -> Iterator[str]:
    """The modules that a file imports anywhere in it, `from package import module` taken apart."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{path}: imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def allowed(room: str) -> set[str]:
    """The rooms of ours that a room may import, itself included."""
    package, _, name = room.partition(".")
    below = {f"services.{each}" for line in SERVICES[:-2] for each in line} if package != "services" else set()
    for line in PACKAGES[package]:
        if name in line:
            break
        below |= {f"{package}.{each}" for each in line}
    return below | {room, package} | ROOFS.get(room, set())


def wrong_imports(path: Path, module: str) -> set[str]:
    found = {
        room_of(name) for name in imported_by(path) if name.split(".")[0] in {*PACKAGES, "tests", "bench", "infra"}
    }
    return found - allowed(room_of(module))


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


@pytest.mark.parametrize("package", PACKAGES)
def test_every_room_imports_only_rooms_below_it(package: str) -> None:
    for path in sources(package):
        wrong = wrong_imports(path, module_of(path))
        assert not wrong, f"{path.relative_to(ROOT)} imports {sorted(wrong)}"


def test_an_arrow_back_is_noticed(tmp_path: Path) -> None:
    planted = tmp_path / "queue.py"
    planted.write_text("from services.wire import messages\nfrom services.serving import registry\n")
    assert wrong_imports(planted, "services.chat.queue") == {"services.serving"}
    planted.write_text("def later():\n    from webapp.chat.relay import Relay\n")
    assert wrong_imports(planted, "services.chat.queue") == {"webapp.chat"}
    planted.write_text("import pipelines.training.data\n")
    assert wrong_imports(planted, "pipelines.launching.targets") == {"pipelines.training"}
    planted.write_text("from services.command.talk import send\nfrom services.doctor import host\n")
    assert wrong_imports(planted, "webapp.application") == {"services.command", "services.doctor"}


@pytest.mark.parametrize("package", PACKAGES)
def test_every_room_stands_in_the_plan_and_says_what_lives_there(package: str) -> None:
    rooms = {path.stem if path.suffix == ".py" else path.name for path in (ROOT / package).iterdir()}
    if PACKAGES[package] != (("*",),):
        planned = {room for line in PACKAGES[package] for room in line}
        found = {
            room
            for room in rooms
            if (ROOT / package / f"{room}.py").exists() or list((ROOT / package / room).glob("*.py"))
        }
        assert found - {"__init__"} == planned
    for init in (ROOT / package).rglob("__init__.py"):
        if "node_modules" not in init.parts:
            assert ast.get_docstring(ast.parse(init.read_text("utf-8"))), f"{init.relative_to(ROOT)}: what lives here?"


def test_web_servers_bytes_have_no_meaning() -> None:
    for path in sources("webapp/server"):
        assert not any(name.startswith("services") for name in imported_by(path)), path


def test_tests_do_not_lean_on_measurements() -> None:
    """`bench` may use the tests' stand-ins and fault systems; only its own tests look back."""
    for path in sources("tests"):
        if path.relative_to(ROOT).parts[1] != "bench":
            assert not any(name.startswith("bench") for name in imported_by(path)), path


@pytest.mark.parametrize("package", ["services", "webapp", "pipelines"])
def test_every_module_imports_without_torch_and_without_work(package: str) -> None:
    """In a fresh process: no heavy library, no thread, no socket. (`python -m webapp` patches; it is not imported.)"""
    programs = LOADS_TORCH | RUN_BY_ALEMBIC | OF_AN_EXTRA
    modules = [module_of(path) for path in sources(package) if path.name != "__main__.py" and path not in programs]
    program = f"""
import importlib, socket, sys, threading
socket.socket.connect = lambda *a: sys.exit("an import connects")
for name in {modules!r}:
    importlib.import_module(name)
heavy = [name for name in {HEAVY!r} if name in sys.modules]
assert not heavy, heavy
assert threading.active_count() == 1, threading.enumerate()
"""
    answer = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr


def reads_our_environment(source: str) -> bool:
    """Whether code, not prose, has to do with the environment and names one of our variables."""
    tree = ast.parse(source)
    prose = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    texts = [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and id(node) not in prose]
    names = {getattr(node, "attr", getattr(node, "id", "")) for node in ast.walk(tree)}
    return bool(names & {"environ", "getenv"}) and any("CHATSERVER_" in text for text in texts if isinstance(text, str))


def test_only_settings_reads_our_environment() -> None:
    """Configuration that is read anywhere is configuration that nobody can list."""
    assert reads_our_environment('import os\nslots = os.environ.get("CHATSERVER_SLOTS")')
    for package in PACKAGES:
        for path in sources(package):
            if path.name != "settings.py":
                assert not reads_our_environment(path.read_text("utf-8")) or "launch" in path.name, path


def key_suffixes() -> set[str]:
    """The last part of every key and channel, as `Keys` itself spells it."""
    keys = Keys("ns")
    found: set[str] = set()
    for name, member in inspect.getmembers(Keys):
        if isinstance(member, property):
            found.add(getattr(keys, name))
        elif inspect.isfunction(member) and not name.startswith("_"):
            made = getattr(keys, name)(*"x" * (len(inspect.signature(member).parameters) - 1))
            found |= {made} if isinstance(made, str) else set(made.all)
    suffixes = {
        next(part for part in reversed(key.split(":")) if re.fullmatch("[a-z]+", part)) for key in found if ":" in key
    }
    assert {"requests", "journal", "state", "tasks", "points", "claim"} <= suffixes
    return suffixes


def spelled_keys(source: str, suffixes: set[str]) -> set[str]:
    """The constants in which code, not prose, spells a part of a key."""
    tree = ast.parse(source)
    prose = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    spelling = re.compile(f"[^ ]*:({'|'.join(sorted(suffixes))})(:[^ ]*)?")
    return {
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in prose
        if spelling.fullmatch(node.value)
    }


def test_only_keys_spells_keys() -> None:
    suffixes = key_suffixes()
    for package in PACKAGES:
        for path in sources(package):
            if path != ROOT / "services/wire/keys.py":
                spelled = spelled_keys(path.read_text("utf-8"), suffixes)
                assert not spelled, f"{path.relative_to(ROOT)} spells {sorted(spelled)}"


def test_a_key_spelled_elsewhere_is_noticed() -> None:
    """The check that looked for a suffix with two colons could not fail."""
    suffixes = key_suffixes()
    for line in ('k = f"{ns}:{{{rid}}}:journal"', 'k = ns + ":jobs"', 'k = "chatserver:{m}:waiting:1"', 'x(":claim:")'):
        assert spelled_keys(line, suffixes), line
    assert not spelled_keys('log.info("the state: running")', suffixes)


def test_every_module_opens_with_a_docstring() -> None:
    for package in [*PACKAGES, "bench"]:
        for path in sources(package):
            if path.read_text("utf-8").strip():
                assert ast.get_docstring(ast.parse(path.read_text("utf-8"))), f"{path.relative_to(ROOT)}: what is it?"
