#!/usr/bin/env bash
# trl 1.16.0 with transformers 5.17.0 and peft 0.21.2 (right with transformers 5.23.0): DPO that goes on with a trained
# adapter keeps a copy of it as reference, in a folder `ref` of each checkpoint. Because of that folder the Trainer takes
# the checkpoint for one of several adapters, loads `ref` alone, and resumes from the weights *before* the first step.
#
# Expected: after train(resume_from_checkpoint=…) the adapter is that of the checkpoint.
# Seen:     distance of the resumed weights to the checkpoint 0.23, to the start of the first run 0.0; step and
#           optimizer are the checkpoint's, and nothing is logged
# Our code: fine-tuning has checkpoints of its own, and tests compare a resumed run with an undisturbed one.
set -euo pipefail
# shellcheck source=findings/_setup.sh
source "$(dirname "$0")/_setup.sh"
install transformers==5.17.0 accelerate==1.15.0 peft==0.21.2 trl==1.16.0 datasets==5.0.1 torch==2.13.0

python - <<'EOF'
import sys

from _tiny_model import make_model, make_tokenizer, preference_rows
from peft import LoraConfig, PeftModel, get_peft_model
from trl import DPOConfig, DPOTrainer

settings = LoraConfig(r=4, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM", init_lora_weights=False)
get_peft_model(make_model(), settings).save_pretrained("trained_adapter")


def make_trainer(**options):
    model = PeftModel.from_pretrained(make_model(), "trained_adapter", is_trainable=True)
    arguments = DPOConfig(output_dir="out", report_to="none", bf16=False, **options)
    rows = preference_rows([8] * 10)
    return DPOTrainer(model, args=arguments, train_dataset=rows, processing_class=make_tokenizer())


def weights(trainer):
    layer = trainer.model.base_model.model.model.layers[0].self_attn.q_proj
    return layer.lora_B["default"].weight.detach().clone()


first = make_trainer(max_steps=4, save_steps=4, learning_rate=0.01)
start = weights(first)
first.train()
second = make_trainer(max_steps=5, save_strategy="no", learning_rate=0.0)
second.train(resume_from_checkpoint="out/checkpoint-4")
to_checkpoint = float((weights(second) - weights(first)).norm())
to_start = float((weights(second) - start).norm())
print(f"resumed at step {second.state.global_step - 1}: distance to the checkpoint {to_checkpoint:.4f}, to the start {to_start:.4f}")
if to_start != 0.0 or to_checkpoint < 0.01:
    sys.exit("changed: the resumed adapter is no longer that of the start")
EOF
