#!/usr/bin/env bash
# transformers 5.17.0 and openvino-genai 2026.4.1.0 over one GGUF: they give different ids for the same text, because
# transformers ignores `tokenizer.ggml.pre`, which names how text is split before the merges ("smollm": every digit alone).
#
# Expected: two readers of one file give one list of ids.
# Seen:     '1 ½ cups'  transformers [33, 3351, 138, 12382]  openvino [33, 216, 16738, 12382]
#           A model that was trained on the one list is asked the other: numerals beyond 0-9 after a space are torn.
# Our code: the tokenizer of a GGUF gets the split that the field names, for the names that we know.
set -euo pipefail
# shellcheck source=findings/_setup.sh
source "$(dirname "$0")/_setup.sh"
install transformers==5.17.0 gguf==0.19.0 torch==2.13.0 openvino-genai==2026.4.1.0
install_model

python - <<'EOF'
import sys

import openvino_genai
from gguf import GGUFReader
from transformers import AutoTokenizer

print("tokenizer.ggml.pre:", GGUFReader("model.gguf").fields["tokenizer.ggml.pre"].contents())
transformers = AutoTokenizer.from_pretrained(".", gguf_file="model.gguf")
openvino = openvino_genai.Tokenizer("model.gguf")
different = 0
for text in ("1 1/2 cups, 2026", "1 ½ cups", "chapter Ⅳ", "step ① then ②"):
    ours = transformers(text, add_special_tokens=False)["input_ids"]
    theirs = openvino.encode(text, add_special_tokens=False).input_ids.data[0].tolist()
    different += ours != theirs
    print(f"{text!r}  transformers {ours}  openvino {theirs}")
if different != 3:
    sys.exit(f"changed: {different} of 4 texts have different ids, not 3")
EOF
