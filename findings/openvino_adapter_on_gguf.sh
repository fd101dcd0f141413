#!/usr/bin/env bash
# openvino-genai 2026.4.1.0 with a LoRA adapter in PEFT's format over a GGUF: the adapter is applied to nothing. The
# pipeline starts, answers as the bare model would, and lists on standard error the tensors that it did not use.
#
# Expected: the adapter works, as over an OpenVINO model, or the pipeline refuses it.
# Seen:     60 lines "Unused LoRA tensor: …", then the answers with and without the adapter (random, huge) are equal
# Our code: the openvino engine takes no adapter; the transformers engine merges it into its base when it loads.
set -euo pipefail
# shellcheck source=findings/_setup.sh
source "$(dirname "$0")/_setup.sh"
install openvino-genai==2026.4.1.0 safetensors==0.8.0 numpy==2.4.6
install_model
cat >ask.py <<'EOF'
import sys

import openvino_genai

options = openvino_genai.GenerationConfig()
options.max_new_tokens, options.apply_chat_template = 16, False
adapters = {}
if sys.argv[1:]:
    adapters["adapters"] = openvino_genai.AdapterConfig(openvino_genai.Adapter(sys.argv[1]), alpha=8.0)
pipeline = openvino_genai.LLMPipeline("model.gguf", "CPU", **adapters)
print("answer:", repr(str(pipeline.generate("The capital of France is", options, **adapters))))
EOF
python - <<'EOF'
import numpy
from safetensors.numpy import save_file

random, tensors = numpy.random.default_rng(0), {}
for layer in range(30):
    for name, size in (("q_proj", 576), ("v_proj", 192)):
        place = f"base_model.model.model.layers.{layer}.self_attn.{name}"
        tensors[f"{place}.lora_A.weight"] = random.normal(size=(8, 576)).astype("float32")
        tensors[f"{place}.lora_B.weight"] = random.normal(size=(size, 8)).astype("float32")
save_file(tensors, "adapter.safetensors")
EOF

bare=$(python ask.py | grep '^answer:')
adapted=$(python ask.py adapter.safetensors 2>errors.txt | grep '^answer:')
echo "tensors named as unused: $(grep -c 'Unused LoRA tensor' errors.txt)"
echo "bare:    $bare"
echo "adapted: $adapted"
[[ $bare == "$adapted" ]] || { echo "changed: the adapter has an effect" >&2; exit 1; }
