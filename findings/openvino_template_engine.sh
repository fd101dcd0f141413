#!/usr/bin/env bash
# openvino-genai 2026.4.1.0 and transformers 5.17.0 over one chat template: OpenVINO's engine is no Jinja. It takes the
# expressions below without a word and gives other text, so one template makes two prompts.
#
# Expected: the text of Jinja, or an error.
# Seen:     {{ 3 / 2 }}                  jinja '1.5'  openvino '1'   (whole numbers are divided as in C)
#           {{ messages[0].content[0] }} jinja 'h'    openvino "{'type': 'text', 'text': 'hello'}"  (messages are rewritten)
#           {{ '' and 'y' }}             jinja ''     openvino 'False'
#           {{ messages[0].role }}       with a system message first: jinja 'system', openvino 'user' (a template that
#                                        shows no system role gets the system's text inside the first question)
# Our code: transformers renders every prompt; the engines are given token ids, with their own templates switched off.
set -euo pipefail
# shellcheck source=findings/_setup.sh
source "$(dirname "$0")/_setup.sh"
install transformers==5.17.0 jinja2==3.1.6 openvino-genai==2026.4.1.0
install_model

python - 2>/dev/null <<'EOF' || { echo "changed: see the lines above" >&2; exit 1; }
import sys

import openvino_genai
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

openvino = openvino_genai.Tokenizer("model.gguf")
jinja = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE()))
question = {"role": "user", "content": "hello"}
system = {"role": "system", "content": "Be brief."}
CASES = [
    ("{{ 3 / 2 }}", [question], "1.5", "1"),
    ("{{ messages[0].content[0] }}", [question], "h", "{'type': 'text', 'text': 'hello'}"),
    ("{{ '' and 'y' }}", [question], "", "False"),
    ("{{ messages[0].role }}", [system, question], "system", "user"),
]
same = True
for template, messages, expected, surprise in CASES:
    right = jinja.apply_chat_template(messages, chat_template=template, tokenize=False)
    seen = openvino.apply_chat_template(messages, add_generation_prompt=False, chat_template=template)
    print(f"{template:30} jinja {right!r:10} openvino {seen!r}", flush=True)
    same = same and (right, seen) == (expected, surprise)
sys.exit(0 if same else 1)
EOF
