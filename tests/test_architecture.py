"""The one rule that a test enforces: imports flow one way, and only workers and the training program load torch."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from services.places import ROOT

MAY_IMPORT = {
    "services": {"services"},
    "workers": {"workers", "services"},
    "webapp": {"webapp", "services"},
    "pipelines": {"pipelines", "services"},
}
OURS = {*MAY_IMPORT, "tests", "bench", "infra"}
KEY_SUFFIXES = ("requests", "ids", "users", "dead", "journal", "state", "events", "control", "workers", "models")
LOADS_TORCH = {ROOT / "pipelines/training/trainer.py"}  # subclasses TRL's trainer; imported by who trains
HEAVY = ("torch", "transformers", "tokenizers", "openvino", "openvino_genai", "numpy")


def imports_of(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            found.add(node.module.split(".")[0])
    return found


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_imports_flow_one_way(package: str) -> None:
    for path in sorted((ROOT / package).rglob("*.py")):
        if "node_modules" not in path.parts:
            wrong = (imports_of(path) & OURS) - MAY_IMPORT[package]
            assert not wrong, f"{path.relative_to(ROOT)} imports {sorted(wrong)}"


@pytest.mark.parametrize("package", ["services", "webapp", "pipelines"])
def test_every_module_imports_without_torch_and_without_work(package: str) -> None:
    """In a fresh process: no heavy library, no thread, no socket. (`python -m webapp` patches; it is not imported.)"""
    modules = [
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for path in sorted((ROOT / package).rglob("*.py"))
        if "node_modules" not in path.parts and path.name != "__main__.py" and path not in LOADS_TORCH
    ]
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


def test_only_settings_reads_our_environment() -> None:
    """Configuration that is read anywhere is configuration that nobody can list."""
    for package in MAY_IMPORT:
        for path in sorted((ROOT / package).rglob("*.py")):
            if path.name != "settings.py" and "node_modules" not in path.parts:
                source = path.read_text("utf-8")
                assert "CHATSERVER_" not in source or "environ" not in source or "launch" in path.name, path


def test_only_protocol_spells_keys() -> None:
    for package in MAY_IMPORT:
        for path in sorted((ROOT / package).rglob("*.py")):
            if path.name != "protocol.py" and "node_modules" not in path.parts:
                source = path.read_text("utf-8")
                for suffix in (
                    ":requests",
                    ":ids",
                    ":users",
                    ":dead",
                    ":journal",
                    ":state",
                    ":events",
                    ":control",
                    ":workers",
                    ":models",
                ):
                    assert f':{suffix}"' not in source, f"{path.relative_to(ROOT)} spells a key: {suffix}"


def test_every_module_opens_with_a_docstring() -> None:
    for package in [*MAY_IMPORT, "bench"]:
        for path in sorted((ROOT / package).rglob("*.py")):
            if "node_modules" not in path.parts and path.read_text("utf-8").strip():
                assert ast.get_docstring(ast.parse(path.read_text("utf-8"))), f"{path.relative_to(ROOT)}: what is it?"
