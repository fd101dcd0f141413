"""Cleanings that the page orders: checks the recipe, and makes the job's folder under the state folder.

    state_dir/jobs/<jid>/            what the run writes: data, rejects, report, .work
    state_dir/jobs/<jid>/inputs/     the uploads that it reads, moved here

`routes.py` calls it. Functions that touch the disk block: call them in a thread.
"""

import hashlib
import hmac
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from services.errors import ConfigurationError, InvalidRequest, shown
from services.jobs.recipe import Recipe, line_of, parse_recipe
from services.models.catalogue import packaged_models
from webapp.jobs.uploads import Uploads, visible

MAX_INPUTS = 64
MAX_NAME_CHARS = 120
MIN_SHARD_MIB = 1  # each shard is a task, a few files and a note in Redis

_JID = re.compile("[0-9a-f]{16}")
_KEY = re.compile("[A-Za-z0-9-]{16,64}")


@dataclass(frozen=True)
class Order:
    """The data that the page sends to submit a job."""

    key: str  # made by the page once per order, so that a repeated order makes no second job
    recipe: str
    recipe_name: str
    uploads: tuple[str, ...]
    name: str


def parse_order(raw: object) -> Order:
    """An order from untrusted JSON `{key, recipe, recipe_name?, uploads, name?}`. Raises InvalidRequest."""
    if not isinstance(raw, Mapping):
        raise InvalidRequest("a job must be an object with key, recipe and uploads")
    uploads = raw.get("uploads")
    if not isinstance(uploads, list) or not all(isinstance(upload, str) for upload in uploads):
        raise InvalidRequest("uploads must be a list of upload ids")
    if not 0 < len(uploads) <= MAX_INPUTS or len(set(uploads)) < len(uploads):
        raise InvalidRequest(f"a job reads 1 to {MAX_INPUTS} different files, not {len(uploads)}")
    key, recipe = checked_key(raw.get("key")), raw.get("recipe")
    if not isinstance(recipe, str):
        raise InvalidRequest("recipe must be the text of a recipe")
    return Order(key, recipe, _label(raw, "recipe_name") or "recipe", tuple(uploads), _label(raw, "name"))


def checked_key(key: object) -> str:
    """The key that the page made for its order. Raises InvalidRequest."""
    if not isinstance(key, str) or not _KEY.fullmatch(key):
        raise InvalidRequest(f"key {shown(key)} is not 16-64 characters of A-Z a-z 0-9 -")
    return key


def _label(raw: Mapping[str, Any], field: str) -> str:
    value = raw.get(field, "")
    if not isinstance(value, str) or len(value) > MAX_NAME_CHARS:
        raise InvalidRequest(f"{field} must be a text of at most {MAX_NAME_CHARS} characters")
    return visible(value)


def checked_recipe(text: str) -> Recipe:
    """The recipe of a page. Raises InvalidRequest, with its line, for an invalid recipe, or one that would have the
    server read or fetch a file."""
    try:
        recipe = parse_recipe(text)
    except ConfigurationError as error:
        raise InvalidRequest.of(error) from None
    for index, step in enumerate(recipe.steps):
        if files := step.files_named():
            raise InvalidRequest(
                f"{step.name}.{step.options.files} names {shown(files[0])}: a recipe of the page cannot name files "
                "of the server; the command can: chatserver clean submit",
                line=line_of(text, "steps", index, step.name, step.options.files),
            )
    if recipe.shard_mib < MIN_SHARD_MIB:
        raise InvalidRequest(
            f"shard_mib is {recipe.shard_mib:g}: a recipe of the page makes shards of at least {MIN_SHARD_MIB} MiB",
            line=line_of(text, "shard_mib"),
        )
    packaged = [model.name for model in packaged_models()]
    if recipe.tokenizer.model not in packaged:
        raise InvalidRequest(
            f"tokenizer.model is {shown(recipe.tokenizer.model)}: a recipe of the page can only name a packaged model "
            f"({', '.join(packaged)}); the command also takes folders and hub ids: chatserver clean submit",
            line=line_of(text, "tokenizer", "model"),
        )
    return recipe


class PageJobs:
    """Makes the folders of jobs from uploads; `services/jobs/job_folders.py` removes them."""

    def __init__(self, uploads: Uploads, jobs_dir: Path, recipes_dir: Path, *, secret: str) -> None:
        self._uploads = uploads
        self._jobs_dir = jobs_dir.resolve()
        self._recipes_dir = recipes_dir
        self._secret = secret.encode()

    def recipes(self) -> list[dict[str, str]]:
        """`{name, text}` of every recipe that comes with the server."""
        return [
            {"name": path.name, "text": path.read_text("utf-8")} for path in sorted(self._recipes_dir.glob("*.yaml"))
        ]

    def jid_of(self, key: str) -> str:
        """The id of the job of an order. Nobody can guess it, and every web process derives the same id."""
        return hmac.new(self._secret, key.encode(), hashlib.sha256).hexdigest()[:16]

    def prepare(self, order: Order) -> tuple[str, str, dict[str, Any]]:
        """Id, name and spec of the job, its inputs in its folder. Repeating it with the same order changes nothing.

        Raises InvalidRequest (with a line where the recipe is at fault), or Gone for an unknown upload.
        """
        recipe = checked_recipe(order.recipe)
        jid = self.jid_of(order.key)
        out = self._jobs_dir / jid
        self._check_sizes(order.uploads, out / "inputs")
        claimed = [self._uploads.claim(upload, out / "inputs") for upload in order.uploads]
        spec = {
            "recipe": order.recipe,
            "recipe_name": order.recipe_name,
            "inputs": [str(path) for path, _ in claimed],
            "labels": [label for _, label in claimed],
            "out": str(out),
        }
        return jid, order.name or recipe.name, spec

    def _check_sizes(self, uploads: Sequence[str], inputs: Path) -> None:
        sizes = [self._uploads.get(upload).size for upload in uploads if not (inputs / upload).exists()]
        if sum(sizes) > self._uploads.max_bytes:
            raise InvalidRequest(
                f"the files have {sum(sizes):,} bytes together; the limit is {self._uploads.max_bytes:,} "
                "(CHATSERVER_MAX_UPLOAD_MIB). The command reads files of any size in place: chatserver clean submit"
            )
