"""Prepared data is kept only where nobody else can change it."""

from pathlib import Path

import pytest

from pipelines.training.data import Counts, Prepared
from pipelines.training.prepared_cache import PreparedCache
from services.errors import ConfigurationError


def prepared(folder: Path) -> Prepared:
    (folder / "train").mkdir()
    return Prepared(folder, Counts(records=3), 2)


def test_what_was_prepared_once_is_found_again(tmp_path: Path) -> None:
    cache = PreparedCache(tmp_path / "cache")
    first = cache.get("k" * 32, prepared)
    again = cache.get("k" * 32, lambda folder: pytest.fail("it was prepared again"))
    assert again == first and (again.folder / "train").is_dir() and again.counts.records == 3


def test_a_folder_that_is_a_link_is_refused_with_the_remedy(tmp_path: Path) -> None:
    """Whoever made the link could change what is trained, and old folders behind it would be deleted."""
    mine = tmp_path / "mine"
    (mine / "letters").mkdir(parents=True)
    (tmp_path / "cache").symlink_to(mine)
    with pytest.raises(ConfigurationError, match=r"another user's, or a link.*set TMPDIR"):
        PreparedCache(tmp_path / "cache").get("k" * 32, prepared)
    assert (mine / "letters").is_dir()
