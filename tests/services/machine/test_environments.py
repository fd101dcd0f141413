"""An environment beside ours: made once, from the marked lines, by one thread or process at a time."""

import subprocess
import threading
import zipfile
from pathlib import Path

import pytest

from services.errors import Unavailable
from services.machine.environments import Environment
from services.places import REQUIREMENTS

ABOUT = "tiny_package-1.2.dist-info"
FILES = {
    "tiny_package-1.2.data/scripts/tiny": "#!/bin/sh\necho tiny\n",
    f"{ABOUT}/METADATA": "Metadata-Version: 2.1\nName: Tiny_Package\nVersion: 1.2\n",
    f"{ABOUT}/WHEEL": "Wheel-Version: 1.0\nGenerator: us\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
}


@pytest.fixture
def wheel(tmp_path: Path) -> None:
    """A package of our own, so that nothing is fetched."""
    record = "".join(f"{name},,\n" for name in [*FILES, f"{ABOUT}/RECORD"])
    with zipfile.ZipFile(tmp_path / "tiny_package-1.2-py3-none-any.whl", "w") as archive:
        for name, text in {**FILES, f"{ABOUT}/RECORD": record}.items():
            info = zipfile.ZipInfo(name)
            info.external_attr = 0o100755 << 16  # as of a script
            archive.writestr(info, text)


@pytest.fixture
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """pip asks nobody but the test's folder."""
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))


def tiny(folder: Path, said: list[str]) -> Environment:
    requirements = folder / "requirements.txt"
    requirements.write_text('redis==8.1.0\nTiny_Package==1.2 ; extra == "tiny"  # why\nother==2 ; extra == "gpu"\n')
    (folder / "env/bin").mkdir(parents=True, exist_ok=True)
    return Environment("tiny", folder / "env", requirements, said.append)


@pytest.mark.usefixtures("wheel", "offline")
def test_it_is_made_when_it_is_first_needed_and_says_so_once(tmp_path: Path) -> None:
    said: list[str] = []
    environment = tiny(tmp_path, said)
    assert environment.pins() == ["Tiny_Package==1.2"] and not environment.complete()
    threads = [threading.Thread(target=environment.python) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert environment.complete() and tiny(tmp_path, said).python() == tmp_path / "env-tiny/bin/python"
    assert len(said) == 2 and "installing once" in said[0] and "is ready" in said[1]
    linked = subprocess.run([str(tmp_path / "env/bin/tiny")], capture_output=True, text=True, check=True)
    assert linked.stdout == "tiny\n"


@pytest.mark.usefixtures("wheel", "offline")
def test_half_an_installation_is_no_installation(tmp_path: Path) -> None:
    """pip writes a package's RECORD last."""
    environment = tiny(tmp_path, [])
    environment.python()
    (record,) = tmp_path.glob("env-tiny/lib/*/site-packages/*iny_*ackage*.dist-info/RECORD")
    record.unlink()
    assert not environment.complete()


@pytest.mark.usefixtures("offline")
def test_what_pip_says_is_the_error_with_the_command_that_tries_again(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="No matching distribution found for Tiny_Package") as caught:
        tiny(tmp_path, []).python()
    assert "-m services.machine.environments tiny" in caught.value.remedy


def test_the_list_names_skypilot_and_keeps_it_out_of_our_environment() -> None:
    (skypilot, *_) = Environment("sky").pins()
    assert skypilot.startswith("skypilot==")
    lines = [line for line in REQUIREMENTS.read_text("utf-8").splitlines() if line.startswith("skypilot")]
    assert lines == [f'{skypilot} ; extra == "sky"']
