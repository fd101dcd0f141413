"""Named chat templates for models without one of their own, as Jinja text that `transformers` renders.

The worker renders prompts with them, the training program its data. The marks `{% generation %}…{% endgeneration %}`
enclose the supervised text: an assistant's text and its end of turn.

The formats are those of the forerunners: Vicuna v1.1, Stanford Alpaca, and `plain` for base models.
"""

from dataclasses import dataclass

from services.errors import ConfigurationError
from services.tokens.family_templates import FAMILY_TEMPLATES


@dataclass(frozen=True)
class ChatTemplate:
    """A Jinja chat template, and the strings at which an answer ends besides the end-of-text token.

    A base model goes on and writes the next message itself. The stop strings are the beginnings of such a message,
    with their line end: an answer may quote `USER:`.
    """

    name: str
    jinja: str
    stop: tuple[str, ...]


VICUNA_SYSTEM = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions."
)
ALPACA_SYSTEM = (
    "Below is an instruction that describes a task. Write a response that appropriately completes the request."
)

_VICUNA = """\
{{- bos_token or '' -}}
{%- if messages[0]['role'] == 'system' -%}
{%- set system = messages[0]['content'] -%}
{%- set turns = messages[1:] -%}
{%- else -%}
{%- set system = "A chat between a curious user and an artificial intelligence assistant. \
The assistant gives helpful, detailed, and polite answers to the user's questions." -%}
{%- set turns = messages -%}
{%- endif -%}
{{- system -}}
{%- for message in turns -%}
{%- if message['role'] == 'user' -%}
{{- ('' if loop.previtem and loop.previtem['role'] == 'assistant' else ' ') + 'USER: ' + message['content'] -}}
{%- elif message['role'] == 'assistant' -%}
{{- ' ASSISTANT:' -}}
{%- generation -%}{{- ' ' + message['content'] + (eos_token or '\\n') -}}{%- endgeneration -%}
{%- else -%}
{{- raise_exception('a system message may only come first') -}}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- ' ASSISTANT:' -}}{%- endif -%}
"""

_ALPACA = """\
{{- bos_token or '' -}}
{%- if messages[0]['role'] == 'system' -%}
{%- set system = messages[0]['content'] -%}
{%- set turns = messages[1:] -%}
{%- else -%}
{%- set system = "Below is an instruction that describes a task. \
Write a response that appropriately completes the request." -%}
{%- set turns = messages -%}
{%- endif -%}
{{- system -}}
{%- for message in turns -%}
{%- if message['role'] == 'user' -%}
{{- '\\n\\n### Instruction:\\n' + message['content'] -}}
{%- elif message['role'] == 'assistant' -%}
{{- '\\n\\n### Response:\\n' -}}
{%- generation -%}{{- message['content'] + (eos_token or '') -}}{%- endgeneration -%}
{%- else -%}
{{- raise_exception('a system message may only come first') -}}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '\\n\\n### Response:\\n' -}}{%- endif -%}
"""

_PLAIN = """\
{{- bos_token or '' -}}
{%- for message in messages -%}
{%- if message['role'] == 'system' -%}
{{- message['content'] + '\\n\\n' -}}
{%- elif message['role'] == 'user' -%}
{{- 'User: ' + message['content'] + '\\n' -}}
{%- else -%}
{{- 'Assistant:' -}}
{%- generation -%}{{- ' ' + message['content'] + (eos_token or '') -}}{%- endgeneration -%}
{{- '\\n' -}}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- 'Assistant:' -}}{%- endif -%}
"""

TEMPLATES = {
    template.name: template
    for template in (
        ChatTemplate("vicuna-v1.1", _VICUNA, ("\nUSER: ",)),
        ChatTemplate("alpaca", _ALPACA, ("\n\n### Instruction:\n",)),
        ChatTemplate("plain", _PLAIN, ("\nUser: ",)),
    )
}


def all_templates() -> dict[str, ChatTemplate]:
    """Every named template: those for base models, then those of the families."""
    return {**TEMPLATES, **{name: ChatTemplate(name, text, ()) for name, text in FAMILY_TEMPLATES.items()}}


def named_template(name: str) -> ChatTemplate:
    """The template of that name. Raises ConfigurationError that names the known templates."""
    known = all_templates()
    if name not in known:
        raise ConfigurationError(f"unknown chat template {name!r}; known: {', '.join(known)}")
    return known[name]


def choose_template(explicit: str, model_name: str, has_own: bool) -> tuple[str, str]:
    """The template of a model: (name, the reason as a sentence to print). An empty name means the tokenizer's own."""
    if explicit:
        return named_template(explicit).name, f"Chat template {explicit}: the setting asks for it."
    if has_own:
        return "", "Chat template: the tokenizer's own."
    for part, name in (("vicuna", "vicuna-v1.1"), ("alpaca", "alpaca")):
        if part in model_name.lower():
            return name, f"Chat template {name}: the tokenizer has none and the model's name contains {part!r}."
    return "plain", f"Chat template plain: the tokenizer has none and the name {model_name!r} matches no other."
