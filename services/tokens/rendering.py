"""Renders a conversation with a chat template, as `apply_chat_template` of `transformers` does.

`tokenization.py` calls it. The template gets the variables that `transformers` gives it: tools where there are some, no
documents, and the tokens that the tokenizer names (bos_token, eos_token).
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jinja2

from services.errors import TemplateError
from services.tokens.system_turns import Turn


def render_template(
    chat_template: str,
    conversation: Sequence[Turn],
    *,
    ask: bool,
    thinking: bool | None,
    named_tokens: Mapping[str, str],
    tools: Sequence[Mapping[str, Any]] = (),
) -> str:
    """The text of a conversation. Raises TemplateError if the template refuses it.

    `thinking` becomes the variables that templates read as their switch: enable_thinking, or thinking (DeepSeek).
    """
    switch = {} if thinking is None else {"enable_thinking": thinking, "thinking": thinking}
    variables = {**named_tokens, **switch, "add_generation_prompt": ask, "tools": list(tools) or None}
    try:
        return _text(chat_template, conversation, variables)
    except (jinja2.TemplateError, TypeError, LookupError, ValueError, AttributeError) as error:
        if _needs_tools(chat_template, variables):
            raise TemplateError(
                f"the chat template is for calling tools only, and there are none ({error}); choose the model's "
                "template for chats, or that of its family, by name as chat_template"
            ) from None
        raise TemplateError(f"the model's chat template refuses these messages: {error}") from None


def _needs_tools(chat_template: str, variables: Mapping[str, Any]) -> bool:
    """Whether the template refuses the plainest conversation, and takes it with tools or functions."""
    plain: list[Turn] = [{"role": "user", "content": "word"}]
    try:
        _text(chat_template, plain, variables)
    except Exception:  # noqa: BLE001
        given = {"tools": [], "functions": "[]", "datetime": ""}
        try:
            _text(chat_template, plain, {**variables, **given})
        except (jinja2.TemplateError, TypeError, LookupError, ValueError, AttributeError):
            return False
        return True
    return False


def _text(chat_template: str, conversation: Sequence[Turn], variables: Mapping[str, Any]) -> str:
    from transformers.utils.chat_template_utils import render_jinja_template

    rendered: Any = render_jinja_template([list(conversation)], chat_template=chat_template, **variables)
    return str(rendered[0][0])
