"""Chat templates of common model families, by name, for a checkpoint that brings none or a wrong one.

`templates.py` lists them. Each is written anew in the manner of its family; a model's own template is to be preferred.

`enable_thinking` is the switch for reasoning in `qwen3`: false writes an empty block of reasoning into the prompt.
"""

_CHATML = """\
{%- for message in messages -%}
{{- '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}
"""

_QWEN3 = """\
{%- set ns = namespace(last=-1) -%}
{%- for message in messages -%}{%- if message['role'] == 'user' -%}{%- set ns.last = loop.index0 -%}{%- endif -%}
{%- endfor -%}
{%- for message in messages -%}
{%- set text = message['content'] -%}
{%- if message['role'] == 'assistant' and '</think>' in text and loop.index0 < ns.last -%}
{%- set text = text.split('</think>')[-1].lstrip('\\n') -%}
{%- elif message['reasoning_content'] and loop.index0 > ns.last -%}
{%- set text = '<think>\\n' + message['reasoning_content'].strip('\\n') + '\\n</think>\\n\\n' + text.lstrip('\\n') -%}
{%- endif -%}
{{- '<|im_start|>' + message['role'] + '\\n' + text + '<|im_end|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{- '<|im_start|>assistant\\n' -}}
{%- if enable_thinking is defined and enable_thinking is false -%}{{- '<think>\\n\\n</think>\\n\\n' -}}{%- endif -%}
{%- endif -%}
"""

_LLAMA3 = """\
{{- bos_token or '' -}}
{%- for message in messages -%}
{{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' + message['content'] | trim + '<|eot_id|>' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' -}}{%- endif -%}
"""

_MISTRAL = """\
{{- bos_token or '' -}}
{%- set ns = namespace(system='') -%}
{%- for message in messages -%}
{%- if message['role'] == 'system' -%}{%- set ns.system = ns.system + message['content'] + '\\n\\n' -%}
{%- elif message['role'] == 'user' -%}
{{- '[INST] ' + ns.system + message['content'] + '[/INST]' -}}{%- set ns.system = '' -%}
{%- else -%}{{- ' ' + message['content'] | trim + eos_token -}}
{%- endif -%}
{%- endfor -%}
"""

_GEMMA = """\
{{- bos_token or '' -}}
{%- set ns = namespace(system='') -%}
{%- for message in messages -%}
{%- if message['role'] == 'system' -%}{%- set ns.system = ns.system + message['content'] + '\\n\\n' -%}
{%- else -%}
{{- '<start_of_turn>' + ('model' if message['role'] == 'assistant' else 'user') + '\\n' -}}
{{- (ns.system + message['content']) | trim + '<end_of_turn>\\n' -}}{%- set ns.system = '' -%}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<start_of_turn>model\\n' -}}{%- endif -%}
"""

_PHI3 = """\
{%- for message in messages -%}
{{- '<|' + message['role'] + '|>\\n' + message['content'] + '<|end|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|assistant|>\\n' -}}{%- endif -%}
"""

FAMILY_TEMPLATES = {
    "chatml": _CHATML,
    "qwen3": _QWEN3,
    "llama-3": _LLAMA3,
    "mistral": _MISTRAL,
    "gemma": _GEMMA,
    "phi-3": _PHI3,
}
