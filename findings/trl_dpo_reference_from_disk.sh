#!/usr/bin/env bash
# trl 1.16.0 with peft 0.21.2: DPOTrainer with `ref_model=None` does not take the model that it is given as reference, as
# its documentation says, but loads the reference anew from the folder that the model once came from.
#
# Expected: a model that was fine-tuned with an adapter and merged is its own reference: its preference starts at a loss
#           of log 2 = 0.6931.
# Seen:     the reference has the weights on the disk, from before the adapter; the first loss is 0.7054
# Our code: does no preference training; who adds it must hand over a reference model.
set -euo pipefail
# shellcheck source=findings/_setup.sh
source "$(dirname "$0")/_setup.sh"
install transformers==5.17.0 accelerate==1.15.0 peft==0.21.2 trl==1.16.0 datasets==5.0.1 torch==2.13.0

python - <<'EOF'
import sys

import torch
from _tiny_model import make_model, make_tokenizer, preference_rows
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM
from trl import DPOConfig, DPOTrainer


def query(model):
    return model.model.layers[0].self_attn.q_proj.weight


make_model().save_pretrained("base")
base = AutoModelForCausalLM.from_pretrained("base")
adapter = LoraConfig(r=4, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM", init_lora_weights=False)
tuned = get_peft_model(AutoModelForCausalLM.from_pretrained("base"), adapter).merge_and_unload().requires_grad_(True)
arguments = DPOConfig(output_dir="out", max_steps=1, logging_steps=1, save_strategy="no", report_to="none", bf16=False)
trainer = DPOTrainer(tuned, args=arguments, train_dataset=preference_rows([8] * 10), processing_class=make_tokenizer())
given, disk = (torch.equal(query(trainer.ref_model), query(other)) for other in (tuned, base))
print(f"the reference is the model that was given: {given}; is what the disk has: {disk}")
trainer.train()
loss = trainer.state.log_history[0]["loss"]
print(f"first loss: {loss:.4f}, where a model beside itself has 0.6931")
if given or not disk or abs(loss - 0.6931) < 0.0002:
    sys.exit("changed: the reference is no longer read from the disk")
EOF
