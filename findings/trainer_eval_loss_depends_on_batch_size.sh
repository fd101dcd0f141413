#!/usr/bin/env bash
# transformers 5.17.0 (the same in 5.23.0): the Trainer's eval_loss depends on the batch size. The training loss is a mean
# over tokens; the evaluation averages each batch first, so a short row in a batch of its own weighs as much as a long one.
#
# Expected: the same model and the same rows give one loss.
# Seen:     batch size 1: 5.8, 2: 9.66, 4: 9.71, 8 (all rows): 9.68 (the short rows were learnt, the long ones not)
# Our code: packs evaluation rows to full sequences as it does training rows, so batches have about as many tokens.
set -euo pipefail
# shellcheck source=findings/_setup.sh
source "$(dirname "$0")/_setup.sh"
install transformers==5.17.0 accelerate==1.15.0 datasets==5.0.1 torch==2.13.0

python - <<'EOF'
import sys

import torch
from _tiny_model import make_model, make_tokenizer, token_rows
from transformers import DataCollatorForSeq2Seq, Trainer, TrainingArguments

model, rows = make_model(), token_rows([3, 50, 4, 60, 3, 40, 5, 55])
short = torch.tensor([rows[place]["input_ids"][:3] for place in (0, 2, 4, 6)])
optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
for _ in range(60):  # the short rows by heart
    model(short, labels=short).loss.backward()
    optimizer.step()
    optimizer.zero_grad()

losses = {}
for size in (1, 2, 4, 8):
    arguments = TrainingArguments(output_dir="out", per_device_eval_batch_size=size, report_to="none", disable_tqdm=True)
    collator = DataCollatorForSeq2Seq(make_tokenizer(), label_pad_token_id=-100)
    losses[size] = round(Trainer(model, arguments, collator, eval_dataset=rows).evaluate()["eval_loss"], 2)
print("eval_loss by batch size:", losses)
if abs(losses[1] - losses[8]) < 0.1:
    sys.exit("changed: the evaluation loss no longer depends on the batch size")
EOF
