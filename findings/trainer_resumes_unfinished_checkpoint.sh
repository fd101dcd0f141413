#!/usr/bin/env bash
# transformers 5.17.0 (the same in 5.23.0): a process that dies while it saves leaves a folder that looks like a checkpoint.
# `train(resume_from_checkpoint=True)` takes the folder with the highest number, whole or not, and the run cannot go on by
# itself although the checkpoint before is whole.
#
# Expected: checkpoints get their name once they are complete, or the newest complete one is taken.
# Seen:     checkpoint-2 whole, checkpoint-4 without optimizer and state: FileNotFoundError … checkpoint-4/trainer_state.json
# Our code: a checkpoint exists once its marker with checksums, written last, is there; the newest whole one is taken.
set -euo pipefail
# shellcheck source=findings/_setup.sh
source "$(dirname "$0")/_setup.sh"
install transformers==5.17.0 accelerate==1.15.0 datasets==5.0.1 torch==2.13.0
cat >train.py <<'EOF'
import os
import sys

import torch
from _tiny_model import make_model, make_tokenizer, token_rows
from transformers import DataCollatorForSeq2Seq, Trainer, TrainingArguments


class Optimizer(torch.optim.AdamW):
    def state_dict(self):
        if sys.argv[1] == "first" and os.path.exists("out/checkpoint-4"):
            os._exit(9)  # the machine is taken away while the second checkpoint is written
        return super().state_dict()


model = make_model()
arguments = TrainingArguments(output_dir="out", max_steps=6, save_steps=2, report_to="none", disable_tqdm=True)
collator = DataCollatorForSeq2Seq(make_tokenizer(), label_pad_token_id=-100)
optimizers = (Optimizer(model.parameters(), lr=0.001), None)
trainer = Trainer(model, arguments, collator, train_dataset=token_rows([8] * 96), optimizers=optimizers)
trainer.train(resume_from_checkpoint=sys.argv[1] == "second")
EOF

python train.py first >/dev/null 2>&1 || true
for checkpoint in out/checkpoint-*; do echo "$checkpoint: $(cd "$checkpoint" && echo *)"; done
[[ -f out/checkpoint-2/trainer_state.json ]] || { echo "the first run saved nothing whole: nothing is shown" >&2; exit 1; }
if python train.py second >log.txt 2>&1; then
  echo "changed: the second run goes on" >&2
  exit 1
fi
tail -n 1 log.txt
grep -q "FileNotFoundError.*checkpoint-4/trainer_state.json" log.txt || { echo "changed: it fails otherwise" >&2; exit 1; }
