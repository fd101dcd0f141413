"""Recipes of cleaning: YAML that says which steps a cleaning takes, with which options.

The command, the web app (which refuses a wrong recipe before it makes a job) and `pipelines` read recipes with this
module. `services/jobs/steps/` has the options of each step. An error names the line; for an unknown name it also names
the nearest known one.

    recipe = parse_recipe(Path("infra/recipes/vicuna.yaml").read_text(), "vicuna.yaml")
"""

import difflib
import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml
from pydantic import Field, ValidationError, model_validator

from services.errors import ConfigurationError
from services.field_errors import in_words
from services.jobs.steps import Options, StepOptions, known_steps

MAX_RECIPE_BYTES = 262_144
MAX_DEPTH = 16  # of nested lists and mappings: the parser recurses in C and would crash the process
MAX_EVENTS = 20_000
MAX_PLAIN_CHARS = 1000  # of a value without quotes: no number needs more digits
MAX_STEPS = 64
MAX_BARRIERS = 8

Model = TypeVar("Model", bound=Options)

STEPS = known_steps()


class TokenizerChoice(Options):
    """The tokenizer and chat template of the model that will be trained, named as for `chatserver worker`."""

    model: str = "smollm2-135m"
    template: str = ""  # a named template; empty: the tokenizer's own, else the one that the model's name suggests


# Options of the input that older builds did not have: where they say nothing, a recipe is the one that it was.
_LATER: dict[str, Any] = {"unlearnable": "reject", "branches": "shown", "keep": ()}


class InputOptions(Options):
    format: Literal["auto", "sharegpt", "openai", "alpaca", "export"] = "auto"
    unlearnable: Literal["reject", "keep"] = Field(
        default="reject",
        description="reject: records that nobody should learn (`label: false`, an image beside the texts, an answer "
        "that stopped at its limit) are rejects. keep: they pass. Labels for fine-tuning on ratings are kept by "
        "`keep: [labels]`.",
    )
    branches: Literal["shown", "all"] = Field(
        default="shown",
        description="Of a conversation with branches (a question asked anew, an answer made again): the branch that "
        "its program shows, or all, each as a record of its own. Of an OpenAssistant tree: the best path, or all.",
    )
    keep: tuple[Literal["pairs", "labels", "tools", "reasoning"], ...] = Field(
        default=(),
        description="What is kept beside conversations, and cleaned with them: pairs of answers, labels of answers "
        "(good or bad), tools with their calls and results, reasoning. Pairs, calls and bad answers are else rejects.",
    )


class OutputOptions(Options):
    format: Literal["sharegpt-jsonl", "sharegpt-json", "openai-jsonl", "trl-jsonl", "parquet"] = "sharegpt-jsonl"


class StepChoice(Options):
    """One entry under `steps`."""

    name: str
    options: StepOptions

    def files_named(self) -> tuple[str, ...]:
        """The files that the step reads."""
        return tuple(getattr(self.options, self.options.files)) if self.options.files else ()


class Recipe(Options):
    """A whole recipe. `digest` changes whenever a value changes that may change the output."""

    name: str = Field("recipe", pattern=r"^[A-Za-z0-9._-]{1,64}$")
    input: InputOptions = InputOptions()
    tokenizer: TokenizerChoice = TokenizerChoice()
    steps: tuple[StepChoice, ...] = Field(min_length=1, max_length=MAX_STEPS)
    output: OutputOptions = OutputOptions()
    shard_mib: float = Field(
        8.0,
        ge=0.001,
        le=1024,
        description="MiB of text in one shard. One task does one shard; a task that dies does its shard again.",
    )

    @model_validator(mode="after")
    def _few_barriers(self) -> "Recipe":
        if sum(step.options.barrier for step in self.steps) > MAX_BARRIERS:
            barriers = (name for name, options in STEPS.items() if options.barrier)
            raise ValueError(f"at most {MAX_BARRIERS} of the steps may be {' or '.join(barriers)}")
        return self

    @property
    def digest(self) -> str:
        """The SHA-256 of the whole content, with the options of each step."""
        later = {name for name, usual in _LATER.items() if getattr(self.input, name) == usual}
        content = [self.model_dump_json(exclude={"steps": True, "input": later})]
        content += [step.name + step.options.model_dump_json() for step in self.steps]
        return hashlib.sha256("\n".join(content).encode()).hexdigest()

    def step_label(self, index: int) -> str:
        """The name under which a step is counted: the step's name, with a number from its second use on."""
        name = self.steps[index].name
        before = sum(step.name == name for step in self.steps[:index])
        return f"{name}-{before + 1}" if before else name

    def files_named(self) -> tuple[str, ...]:
        """The files that the recipe itself reads."""
        return tuple(path for step in self.steps for path in step.files_named())


def checked_input(name: str) -> str:
    """The name of an input or output. Raises ConfigurationError for a URL with credentials, since logs hold names."""
    if "://" in name and "@" in name.split("://", 1)[1].split("/", 1)[0]:
        scheme = name.split("://", 1)[0]
        raise ConfigurationError(
            f"{scheme}://… holds credentials, which would end up in records and logs; give them in the "
            "environment or in the storage library's own configuration"
        )
    return name


def read_recipe(path: Path) -> Recipe:
    """The recipe in a file. Raises ConfigurationError that names the file and the line."""
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"recipe {path}: {error}") from None
    return parse_recipe(text, str(path))


def parse_recipe(text: str, where: str = "recipe") -> Recipe:
    """The recipe in `text`. Raises ConfigurationError with the source `where` and the line."""
    try:
        return _parsed(text)
    except ConfigurationError as error:
        error.source = where
        raise


def _parsed(text: str) -> Recipe:
    if len(text) > MAX_RECIPE_BYTES:
        raise ConfigurationError(f"{len(text)} characters; a recipe has at most {MAX_RECIPE_BYTES}", line=0)
    try:
        _refuse_bombs(text)
        root = yaml.compose(text, Loader=yaml.CSafeLoader)
        values = yaml.load(text, Loader=yaml.CSafeLoader)
    except (yaml.YAMLError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        why = getattr(error, "problem", None) or error
        if "nesting depth" in str(why):  # libyaml's own bound, which it meets before we see how deep it is
            raise ConfigurationError("a recipe is nested too deeply", line=mark.line + 1 if mark else 0) from None
        raise ConfigurationError(f"not valid YAML: {why}", line=mark.line + 1 if mark else 0) from None
    except ValueError as error:  # a date or number that cannot exist
        raise ConfigurationError(f"not valid YAML: {error}", line=0) from None
    if not isinstance(values, dict) or root is None:
        raise ConfigurationError("a recipe is a mapping with the key `steps`", line=1)
    lines = _Lines(root)
    lines.refuse_repeated(root)
    entries = values.get("steps")
    if not isinstance(entries, list):
        raise ConfigurationError(f"`steps` is a list of steps; known: {', '.join(STEPS)}", line=lines.at("steps"))
    steps = tuple(_step(entry, lines, index) for index, entry in enumerate(entries))
    return lines.checked(Recipe, {**values, "steps": steps}, ())


def _refuse_bombs(text: str) -> None:
    """Refuse what lets a short text take endless time or memory: deep nesting, aliases, merges, huge numbers."""
    depth = 0
    for number, event in enumerate(yaml.parse(text, Loader=yaml.CSafeLoader)):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        plain = event.value if isinstance(event, yaml.ScalarEvent) and not event.style else ""
        wrong = {
            "nested too deeply": depth > MAX_DEPTH,
            "too long": number > MAX_EVENTS,
            "no place for aliases and merges": isinstance(event, yaml.AliasEvent) or plain == "<<",
            f"no place for {len(plain)} characters without quotes": len(plain) > MAX_PLAIN_CHARS,
        }
        for what, is_so in wrong.items():
            if is_so:
                line = event.start_mark.line + 1 if event.start_mark else 1
                raise ConfigurationError(f"a recipe is {what}", line=line)


def line_of(text: str, *path: str | int) -> int:
    """The line, from 1, of a value in the text of a valid recipe."""
    root = yaml.compose(text, Loader=yaml.CSafeLoader)
    return _Lines(root).at(*path) if root else 1


def _step(entry: Any, lines: "_Lines", index: int) -> StepChoice:
    name, given = (entry, None)
    if isinstance(entry, dict) and len(entry) == 1:
        [(name, given)] = entry.items()
    if not isinstance(name, str):
        raise ConfigurationError("a step is `name` or `name: {option: value}`", line=lines.at("steps", index))
    if name not in STEPS:
        raise ConfigurationError(f"unknown step {name!r}{_near(name, STEPS)}", line=lines.at("steps", index))
    if given is not None and not isinstance(given, dict):
        raise ConfigurationError(f"the options of {name} are `option: value`", line=lines.at("steps", index))
    return StepChoice(name=name, options=lines.checked(STEPS[name], given or {}, ("steps", index, name)))


class _Lines:
    """The line of each value in the text of a recipe."""

    def __init__(self, root: yaml.Node) -> None:
        self._root = root

    def at(self, *path: str | int) -> int:
        """The line of the value at this path. If the path does not exist, the line of its longest part that does."""
        node, line = self._root, self._root.start_mark.line
        for part in path:
            found = _child(node, part)
            if found is None:
                break
            line, node = found
        return int(line) + 1

    def refuse_repeated(self, node: yaml.Node) -> None:
        """Refuse a key that stands twice in one mapping: YAML would silently take the second."""
        for mapping in _mappings(node):
            seen: set[str] = set()
            for key, _ in mapping.value:
                if key.value in seen:
                    raise ConfigurationError(f"{key.value} stands twice", line=key.start_mark.line + 1)
                seen.add(key.value)

    def checked(self, kind: type[Model], values: dict[str, Any], path: tuple[str | int, ...]) -> Model:
        try:
            return kind(**{str(name): value for name, value in values.items()})
        except ValidationError as error:
            first = error.errors()[0]
            raise ConfigurationError(_sentence(first, kind), line=self.at(*path, *first["loc"])) from None


def _mappings(root: yaml.Node) -> Iterator[yaml.MappingNode]:
    """Each mapping of the text once, also when an alias makes a circle."""
    left, seen = [root], set()
    while left:
        node = left.pop()
        if id(node) in seen or not isinstance(node, yaml.CollectionNode):
            continue
        seen.add(id(node))
        if isinstance(node, yaml.MappingNode):
            yield node
        left += [part for entry in node.value for part in (entry if isinstance(entry, tuple) else (entry,))]


def _child(node: yaml.Node, part: str | int) -> tuple[int, yaml.Node] | None:
    """The line and the node of one member."""
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if key.value == str(part):
                return key.start_mark.line, value
    elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
        return node.value[part].start_mark.line, node.value[part]
    return None


def _sentence(problem: Any, kind: type[Options]) -> str:
    name = ".".join(str(part) for part in problem["loc"]) or "options"
    if problem["type"] == "extra_forbidden":
        return f"unknown key {name!r}{_near(str(problem['loc'][-1]), _fields(kind, problem['loc'][:-1]))}"
    if problem["type"] == "missing":
        return f"{name} {in_words(problem)}"
    given = problem.get("input")
    shown = f" is {given!r:.80}" if isinstance(given, str | int | float | None) else ""
    return f"{name}{shown}: {in_words(problem)}"


def _fields(kind: type[Options], path: tuple[str | int, ...]) -> list[str]:
    """The known names at a path inside `kind`."""
    for part in path:
        field = kind.model_fields.get(str(part))
        if field is None or not isinstance(field.annotation, type) or not issubclass(field.annotation, Options):
            return []
        kind = field.annotation
    return list(kind.model_fields)


def _near(name: str, known: Iterable[str]) -> str:
    known = list(known)
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"; did you mean {close[0]}?" if close else f"; known: {', '.join(known)}"
