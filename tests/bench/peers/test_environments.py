"""Programs that install are quoted when they fail, and a source package is unpacked whole."""

import sys
import tarfile
from pathlib import Path

import pytest

from bench.peers.environments import PeerError, run_to_end, unpack_whole


def test_a_program_that_fails_is_quoted_in_one_line_with_its_log(tmp_path: Path) -> None:
    log = tmp_path / "install.log"
    program = "print('no such'); print(); print('package'); raise SystemExit(3)"
    with pytest.raises(PeerError, match=r"ended with 3: no such / package \(.*install\.log\)"):
        run_to_end([sys.executable, "-c", program], log)


def test_a_program_that_succeeds_leaves_its_log(tmp_path: Path) -> None:
    run_to_end([sys.executable, "-c", "print('done')"], tmp_path / "install.log")
    assert (tmp_path / "install.log").read_text() == "done\n"


def test_a_source_package_becomes_the_folder_and_its_archive_goes(tmp_path: Path) -> None:
    package, archive = tmp_path / "package-1.0", tmp_path / "package.tar.gz"
    (package / "llama.cpp").mkdir(parents=True)
    (package / "llama.cpp" / "CMakeLists.txt").write_text("project")
    with tarfile.open(archive, "w:gz") as file:
        file.add(package, arcname=package.name)
    unpack_whole(archive, tmp_path / "source")
    assert (tmp_path / "source" / "llama.cpp" / "CMakeLists.txt").read_text() == "project"
    assert not archive.exists()
