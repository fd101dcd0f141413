"""Finds chat templates that write a conversation turn by turn, and so the text of its beginnings in one rendering.

Training needs the text of a conversation up to each answer, with the prompt and without. Where a template writes each
turn by what stands before it, and the prompt by nothing, the text of a conversation holds the texts of all beginnings.
That is read off the template's syntax tree, and refused where in doubt. `tokenization.py` calls it once for each model.
"""

import re
from collections.abc import Sequence

from jinja2 import nodes

_LOOP = re.compile(r"\{%[-+]?\s*for\s+\w+\s+in\s+messages\s*([-+]?)%\}")
_ASK = "add_generation_prompt"
_OF_LOOP = frozenset({"first", "index", "index0"})  # what of the loop no later turn decides
_OF_PROMPT = frozenset({"enable_thinking", "thinking", "reasoning_effort", "thinking_budget", "bos_token", "eos_token"})

MARK = "\ufdd0turn\ufdd1"
"""What the marked template writes before each turn. The two characters are no text's, by Unicode's own rule."""


def marked_by_turns(chat_template: str) -> str:
    """The template with `MARK` before each turn; empty if it may not write turn by turn."""
    loops = list(_LOOP.finditer(chat_template))
    if len(loops) != 1:
        return ""
    loop = loops[0]
    mark = f"{{% if true %}}{MARK}{{% endif {loop[1]}%}}"  # a block: the white space behind it is trimmed as before
    marked = chat_template[: loop.end()] + mark + chat_template[loop.end() :]
    return marked if _is_turnwise(_tree(chat_template)) and _without_mark(_tree(marked)) == _tree(chat_template) else ""


def beginnings(marked_text: str, num_turns: int) -> list[str]:
    """The texts of the first 1, 2, … turns from that of all; none if the text is not marked once before each turn."""
    head, *turns = marked_text.split(MARK)
    if len(turns) != num_turns:
        return []
    texts = [head]
    for turn in turns:
        texts.append(texts[-1] + turn)
    return texts[1:]


def _tree(chat_template: str) -> nodes.Template:
    from transformers.utils.chat_template_utils import _compile_jinja_template

    tree: nodes.Template = _compile_jinja_template(chat_template).environment.parse(chat_template)
    return tree


def _without_mark(tree: nodes.Template) -> nodes.Template:
    for loop in tree.find_all(nodes.For):
        if any(data.data == MARK for data in loop.body[0].find_all(nodes.TemplateData)):
            del loop.body[0]
    return tree


def _is_turnwise(tree: nodes.Template) -> bool:
    """One loop over the messages at the top, and behind it nothing but the prompt."""
    at = [number for number, node in enumerate(tree.body) if _is_loop(node)]
    if len(at) != 1:
        return False
    behind = tree.body[at[0] + 1 :]
    asking = [name for node in behind for name in node.find_all(nodes.Name) if name.name == _ASK]
    return (
        all(map(_only_asks, behind))
        and len(asking) == len(_named(tree, _ASK))
        and len(_named(tree, "messages")) == 1 + _num_of_first_message(tree)
        and len(_named(tree, "loop")) == _num_of_loop(tree)
    )


def _is_loop(node: nodes.Node) -> bool:
    if not isinstance(node, nodes.For) or node.test or node.else_ or node.recursive:
        return False
    return isinstance(node.iter, nodes.Name) and node.iter.name == "messages"


def _only_asks(node: nodes.Node) -> bool:
    """Whether the node writes nothing but the prompt, and that by nothing that the turns decide."""
    if not isinstance(node, nodes.If) or node.elif_ or node.else_ or node.test != nodes.Name(_ASK, "load"):
        return False
    return {name.name for inner in node.body for name in inner.find_all(nodes.Name)} <= _OF_PROMPT


def _named(tree: nodes.Template, name: str) -> Sequence[nodes.Name]:
    return [found for found in tree.find_all(nodes.Name) if found.name == name]


def _num_of_first_message(tree: nodes.Template) -> int:
    """How often the template reads `messages[0]`, which every beginning has."""
    first = nodes.Getitem(nodes.Name("messages", "load"), nodes.Const(0), "load")
    return sum(found == first for found in tree.find_all(nodes.Getitem))


def _num_of_loop(tree: nodes.Template) -> int:
    """How often the template reads of a loop what no later turn decides."""
    found = (node for node in tree.find_all(nodes.Getattr) if node.attr in _OF_LOOP)
    return sum(isinstance(node.node, nodes.Name) and node.node.name == "loop" for node in found)
