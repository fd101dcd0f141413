"""Calls as Python: `<|tool_call_start|>[name(key='value', n=3), …]<|tool_call_end|>`, as LFM2.5 writes them.

They are told once all of them are whole: Python says where a value ends only then. Values are literals.
"""

import ast

import orjson

from services.tokens.call_text import Broken, CallText, Reading

OPENING, CLOSING = "<|tool_call_start|>", "<|tool_call_end|>"
_MOST_CHARS = 65_536  # Python's parser is slow and deep


def read(text: CallText) -> Reading[None]:
    """Reads to the end of the text."""
    while (yield from text.said((OPENING,))):
        parts: list[str] = []
        try:
            if not (yield from text.kept_up_to(CLOSING, _MOST_CHARS, parts)):
                raise Broken
            calls = _calls("".join(parts))
        except Broken:
            text.restore(OPENING)
            continue
        for name, arguments in calls:
            text.tell_whole(name, arguments)


def _calls(source: str) -> list[tuple[str, str]]:
    try:
        tree = ast.parse(source.strip(), mode="eval").body
        nodes = tree.elts if isinstance(tree, ast.List) else [tree]
        return [_call(node) for node in nodes] or _broken()
    except (SyntaxError, ValueError, TypeError, MemoryError, RecursionError):
        raise Broken from None


def _call(node: ast.expr) -> tuple[str, str]:
    if not isinstance(node, ast.Call) or node.args or any(each.arg is None for each in node.keywords):
        raise Broken
    arguments = {str(each.arg): ast.literal_eval(each.value) for each in node.keywords}
    return ast.unparse(node.func), orjson.dumps(arguments).decode()


def _broken() -> list[tuple[str, str]]:
    raise Broken
