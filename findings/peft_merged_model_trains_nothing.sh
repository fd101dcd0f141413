#!/usr/bin/env bash
# peft 0.21.2 and transformers 5.17.0 (the same with 5.23.0): `merge_and_unload` gives back a model whose every weight is
# frozen, and with gradient checkpointing on (TRL's default) the Trainer trains it to the end without changing anything.
#
# Expected: the plain model is as trainable as before it got its adapter; or a run without trainable weights is refused.
# Seen:     trainable weights 0; without gradient checkpointing a RuntimeError ("does not require grad"); with it three
#           steps with losses, grad_norm 0.0, no warning, and not one weight changed
# Our code: merged models are written and loaded anew before they are trained again.
set -euo pipefail
# shellcheck source=findings/_setup.sh
source "$(dirname "$0")/_setup.sh"
install transformers==5.17.0 accelerate==1.15.0 peft==0.21.2 datasets==5.0.1 torch==2.13.0

python - <<'EOF'
import sys

import torch
from _tiny_model import make_model, make_tokenizer, token_rows
from peft import LoraConfig, get_peft_model
from transformers import DataCollatorForSeq2Seq, Trainer, TrainingArguments

adapter = LoraConfig(r=4, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM", init_lora_weights=False)
model = get_peft_model(make_model(), adapter).merge_and_unload()
trainable = sum(weight.requires_grad for weight in model.parameters())
print("trainable weights after the merge:", trainable)
before = [weight.detach().clone() for weight in model.parameters()]
options = {"output_dir": "out", "max_steps": 3, "logging_steps": 1, "save_strategy": "no", "report_to": "none"}
arguments = TrainingArguments(**options, gradient_checkpointing=True, learning_rate=0.01, disable_tqdm=True)
collator = DataCollatorForSeq2Seq(make_tokenizer(), label_pad_token_id=-100)
trainer = Trainer(model, arguments, collator, train_dataset=token_rows([8] * 12))
trainer.train()
steps = [(entry["loss"], entry["grad_norm"]) for entry in trainer.state.log_history if "loss" in entry]
changed = sum(not torch.equal(old, new) for old, new in zip(before, model.parameters(), strict=True))
print("loss and grad_norm of each step:", steps)
print("weights that the run changed:", changed)
if trainable or changed or len(steps) != 3:
    sys.exit("changed: the merged model is trainable, or the run was refused")
EOF
