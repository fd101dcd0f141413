#!/usr/bin/env bash
# transformers 5.17.0 with gguf 0.19.0 (right in transformers 5.23.0): the tokenizer read from a GGUF of the Llama family
# takes its end token from the file's *begin* token.
#
# Expected: eos_token is what tokenizer.ggml.eos_token_id names: <|im_end|>, id 2.
# Seen:     file: bos 1 '<|im_start|>', eos 2 '<|im_end|>'
#           transformers: bos '<|im_start|>', eos '<|im_start|>'
#           Whoever stops, pads or trains at eos_token does it at the token that *opens* a turn, so answers do not end.
# Our code: the tokenizers that serve and train take the ids from the GGUF's own fields, not from this conversion.
set -euo pipefail
# shellcheck source=findings/_setup.sh
source "$(dirname "$0")/_setup.sh"
install transformers==5.17.0 gguf==0.19.0 torch==2.13.0
install_model

python - <<'EOF'
import sys

from gguf import GGUFReader
from transformers import AutoTokenizer

fields = GGUFReader("model.gguf").fields
tokens = fields["tokenizer.ggml.tokens"].contents()
bos, eos = (fields[f"tokenizer.ggml.{kind}_token_id"].contents() for kind in ("bos", "eos"))
tokenizer = AutoTokenizer.from_pretrained(".", gguf_file="model.gguf")
print(f"file: bos {bos} {tokens[bos]!r}, eos {eos} {tokens[eos]!r}")
print(f"transformers: bos {tokenizer.bos_token!r}, eos {tokenizer.eos_token!r}")
if tokenizer.eos_token != tokens[bos] or tokens[bos] == tokens[eos]:
    sys.exit("changed: the end token is no longer the file's begin token")
EOF
