"""Recipes: what is wrong is told with its line."""

import ast
from pathlib import Path

import pytest

from services.errors import ConfigurationError
from services.jobs.recipe import STEPS, checked_input, parse_recipe, read_recipe
from services.places import ROOT


@pytest.mark.parametrize("path", sorted((ROOT / "infra/recipes").glob("*.yaml")), ids=lambda path: path.stem)
def test_shipped_recipes_are_valid(path: Path) -> None:
    assert read_recipe(path).name == path.stem


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("steps:\n  - roles: {min_turn: 3}\n", "recipe:2: unknown key 'min_turn'; did you mean min_turns?"),
        ("steps:\n  - roles:\n      min_turns: 1\n", "recipe:3: min_turns is 1: must be at least 2"),
        ("name: a\nsteps:\n  - rolls\n", "recipe:3: unknown step 'rolls'; did you mean roles?"),
        ("nam: a\nsteps: [roles]\n", "recipe:1: unknown key 'nam'; did you mean name?"),
        ("tokenizer:\n  modle: x\nsteps: [roles]\n", "recipe:2: unknown key 'tokenizer.modle'; did you mean model?"),
        ("steps:\n - languages:\n     keep: [english]\n", "recipe:3: keep.0 is 'english'"),
        ("steps:\n - languages: {}\n", "recipe:2: options: give either keep or skip"),
        ("steps:\n - roles\n - sample:\n     count: 3\n     fraction: 0.5\n", "recipe:3: options: give either"),
        ("steps: [\n", "recipe:2: not valid YAML"),
        ("steps: []\n", "recipe:1: steps"),
        ("steps: roles\n", "recipe:1: `steps` is a list"),
        ("steps:\n - roles: 3\n", "recipe:2: the options of roles"),
        ("steps:\n - {roles: {}, quality: {}}\n", "recipe:2: a step is `name` or"),
        ("steps:\n - roles: {min_turns: 2, min_turns: 4}\n", "recipe:2: min_turns stands twice"),
        ("- roles\n", "recipe:1: a recipe is a mapping"),
        ("", "recipe:1: a recipe is a mapping"),
        ("&a [*a]", "recipe:1: a recipe is no place for aliases"),
        ("steps: [roles]\nshard_mib: .inf\n", "recipe:2: shard_mib is inf"),
        ("name: 2026-13-45\nsteps: [roles]\n", "recipe"),
    ],
)
def test_what_is_wrong_is_told_with_its_line(text: str, message: str) -> None:
    with pytest.raises(ConfigurationError) as error:
        parse_recipe(text)
    assert str(error.value).startswith(message)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("steps: " + "[" * 100_000, "nested too deeply"),
        ("steps: " + "{a: " * 50_000, "nested too deeply"),
        ("- " * 60_000, "nested too deeply"),
        ("a: &a {x: 1}\nb: {<<: {x: 2}}\nsteps: [roles]\n", "no place for aliases and merges"),
        ("a: &a [roles]\nsteps: *a\n", "no place for aliases and merges"),
        ("steps: [" + "roles, " * 30_000 + "]", "too long"),
        ("steps: [roles]\nshard_mib: 0x" + "f" * 5000, "no place for 5002 characters without quotes"),
        ("steps: [" + "roles, " * 65 + "]", "at most 64 items"),
        ("steps: [" + "deduplicate, " * 9 + "]", "at most 8 of the steps"),
    ],
)
def test_a_recipe_cannot_keep_the_server_busy(text: str, what: str) -> None:
    """A hundred thousand brackets ended the web process, a few merges of merges stopped it for minutes."""
    with pytest.raises(ConfigurationError, match=what):
        parse_recipe(text)


def test_credentials_in_a_url_are_refused_and_not_repeated() -> None:
    with pytest.raises(ConfigurationError) as error:
        checked_input("s3://key:secret@bucket/file.json")
    assert "secret" not in error.value.message
    assert checked_input("s3://bucket/a@b.json") == "s3://bucket/a@b.json"


def test_the_digest_changes_with_any_option_and_with_nothing_else() -> None:
    one = parse_recipe("steps:\n - roles: {min_turns: 2}\n")
    assert one.digest == parse_recipe("# the same\nsteps: [roles]\n").digest
    assert one.digest != parse_recipe("steps:\n - roles: {min_turns: 4}\n").digest
    assert one.digest != parse_recipe("steps: [roles, roles]\n").digest


def test_a_step_used_twice_is_counted_under_two_names() -> None:
    recipe = parse_recipe("steps: [roles, repair_unicode, roles]\n")
    assert [recipe.step_label(index) for index in range(3)] == ["roles", "repair_unicode", "roles-2"]


def test_every_step_has_a_file_and_every_file_is_a_step() -> None:
    files = {path.stem for path in (ROOT / "pipelines/steps").glob("*.py")} - {"__init__"}
    assert files == set(STEPS)


def constants(path: Path) -> set[object]:
    return {node.value for node in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(node, ast.Constant)}


@pytest.mark.parametrize("name", STEPS)
def test_the_reasons_of_a_step_are_those_that_its_file_gives(name: str) -> None:
    """Deduplicate takes its reasons from its options; what others reject and cut for, `test_sums.py` compares."""
    if name != "deduplicate":
        assert set(STEPS[name].reasons) <= constants(ROOT / f"pipelines/steps/{name}.py")


@pytest.mark.parametrize("name", STEPS)
def test_the_table_of_steps_names_every_step_with_all_its_reasons(name: str) -> None:
    rows = [line for line in (ROOT / "docs/cleaning.md").read_text("utf-8").splitlines() if line.startswith("| `")]
    row = next((row for row in rows if row.startswith(f"| `{name}` |")), "")
    assert row, f"docs/cleaning.md has no row for {name}"
    unnamed = [reason for reason in STEPS[name].reasons if f"`{reason}`" not in row]
    assert not unnamed, f"the row of {name} in docs/cleaning.md does not name {unnamed}"
