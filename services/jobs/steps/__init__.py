"""The options of each cleaning step, and the reasons for which a step drops something: one file for each step.

The steps themselves are in `pipelines/steps/`, under the same names. This package imports nothing of them: the web app
checks recipes with it and may load neither the pipelines nor their libraries. The folder is the table: `roles.py` holds
`RolesOptions`, and a recipe says `roles`.
"""

import pkgutil
from importlib import import_module
from typing import Annotated, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

MAX_LISTED = 1000  # phrases, tokens, files

Fraction = Annotated[float, Field(gt=0, lt=1)]


class Options(BaseModel):
    """The options of one part of a recipe. Frozen; an unknown name is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class StepOptions(Options):
    """The options of one step."""

    reasons: ClassVar[tuple[str, ...]] = ()  # why the step rejects a record or cuts turns
    barrier: ClassVar[bool] = False  # the step sees all shards before it decides
    asks_tokenizer: ClassVar[bool] = False  # the step uses the tokenizer of the model that will be trained
    files: ClassVar[str] = ""  # the option that names the files which the step reads
    # What the step is shown of a record with more than turns of text (`pipelines/cleaning/views.py`): all texts of both
    # answers of a pair; the texts once with each answer; rounds, each answer with its calls as one turn; the record,
    # of which it reads no text.
    view: ClassVar[Literal["texts", "answers", "rounds", "record"]] = "texts"


def known_steps() -> dict[str, type[StepOptions]]:
    """Name → options, for every file in this folder."""
    return {module.name: _options_in(module.name) for module in pkgutil.iter_modules(__path__)}


def _options_in(name: str) -> type[StepOptions]:
    words = (word.capitalize() for word in name.split("_"))
    found: type[StepOptions] = getattr(import_module(f"{__name__}.{name}"), f"{''.join(words)}Options")
    return found
