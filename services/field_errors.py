"""Says in plain words what is wrong with a field that pydantic refused. Settings, recipes and configurations use it.

pydantic's own messages speak of inputs, instances and constraints; people read ours in the terminal and on the page.
"""

import re
from collections.abc import Mapping
from typing import Any

_WORDS = {
    "greater_than": "must be greater than {gt}",
    "greater_than_equal": "must be at least {ge}",
    "less_than": "must be less than {lt}",
    "less_than_equal": "must be at most {le}",
    "finite_number": "must be a finite number",
    "string_pattern_mismatch": "must have the form {pattern}",
    "string_too_short": "must have at least {min_length} characters",
    "string_too_long": "must have at most {max_length} characters",
    "too_short": "must have at least {min_length} items",
    "too_long": "must have at most {max_length} items",
    "missing": "is missing",
    "extra_forbidden": "is unknown",
    "int_from_float": "must be a whole number",
    "int_parsing_size": "is too large",
    "value_error": "{error}",
}
_CHOICE = re.compile(r"\^\(([\w|-]+)\)\$")
_KINDS = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "string": "a text",
    "path": "a path",
    "list": "a list",
    "tuple": "a list",
    "dict": "a mapping of names to values",
    "model": "a mapping of names to values",
}


def in_words(problem: Mapping[str, Any]) -> str:
    """The words for one entry of `ValidationError.errors()`; they follow the field's name and value."""
    kind, context = str(problem["type"]), problem.get("ctx", {})
    if kind == "literal_error":
        return f"must be {context['expected'].replace(chr(39), '')}"
    if kind == "string_pattern_mismatch" and (choice := _CHOICE.fullmatch(context["pattern"])):
        return f"must be {' or '.join(choice[1].split('|'))}"
    if kind in _WORDS:
        return _WORDS[kind].format_map(context)
    of = kind.partition("_")[0]
    return f"must be {_KINDS[of]}" if of in _KINDS else str(problem["msg"])
