"""Renders a conversation with a chat template, as `apply_chat_template` of `transformers` does.

`tokenization.py` calls it. The template gets the variables that `transformers` gives it: tools where there are some, no
documents, and the tokens that the tokenizer names (bos_token, eos_token).
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import jinja2

from services.errors import TemplateError
from services.tokens.system_turns import Turn

_EFFORT_NONE = re.compile(r"""["']none["']""")
_WORD = {"content": "text", "reasoning_content": "reasoning"}


def render_template(
    chat_template: str,
    conversation: Sequence[Turn],
    *,
    ask: bool,
    thinking: bool | None,
    named_tokens: Mapping[str, str],
    continued: str = "",
    tools: Sequence[Mapping[str, Any]] = (),
) -> str:
    """The text of a conversation. Raises TemplateError if the template refuses it.

    `continued` names the field of the last turn at whose end the text ends, so that the model goes on there.
    """
    switch = {} if thinking is None else _switch(chat_template, thinking)
    variables = {**named_tokens, **switch, "add_generation_prompt": ask, "tools": list(tools) or None}
    try:
        return _text(chat_template, conversation, {**variables, "continue_final_message": continued or False})
    except (jinja2.TemplateError, TypeError, LookupError, ValueError, AttributeError) as error:
        if str(error).startswith("continue_final_message"):  # the library's words quote the conversation
            raise TemplateError(
                f"the model's chat template does not write the last message's {_WORD[continued]} as it is, so no answer"
                " can go on at its end; begin the answer with other text"
            ) from None
        if _needs_tools(chat_template, variables):
            raise TemplateError(
                f"the chat template is for calling tools only, and there are none ({error}); choose the model's "
                "template for chats, or that of its family, by name as chat_template"
            ) from None
        raise TemplateError(f"the model's chat template refuses these messages: {error}") from None


def _switch(chat_template: str, thinking: bool) -> dict[str, Any]:
    """The variables that templates read as their switch for reasoning.

    Most read enable_thinking; DeepSeek, Granite and Kimi thinking; Seed a budget of tokens. A template with efforts of
    reasoning has perhaps none called `none`, and then (gpt-oss) always thinks: the least is a low one.
    """
    switch: dict[str, Any] = {"enable_thinking": thinking, "thinking": thinking}
    if not thinking:
        switch["thinking_budget"] = 0
    if "reasoning_effort" in chat_template:
        has_none = _EFFORT_NONE.search(chat_template)
        if not thinking:
            switch["reasoning_effort"] = "none" if has_none else "low"
        elif has_none:
            switch["reasoning_effort"] = "high"
    return switch


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
