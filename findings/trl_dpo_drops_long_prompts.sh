#!/usr/bin/env bash
# trl 1.16.0: DPOTrainer drops every example whose prompt alone has `max_length` tokens, though the option says that longer
# sequences are *truncated*. No warning and no count: only a progress bar passes by.
#
# Expected: a truncated example, an error, or a logged number of what is missing.
# Seen:     10 examples in, 4 of them with long prompts; the trainer has 6; nothing is logged at level WARNING or above
# Our code: fine-tuning counts what it cuts and what it leaves out, and says both before the first step.
set -euo pipefail
# shellcheck source=findings/_setup.sh
source "$(dirname "$0")/_setup.sh"
install transformers==5.17.0 accelerate==1.15.0 trl==1.16.0 datasets==5.0.1 torch==2.13.0

python - <<'EOF'
import logging
import sys

from _tiny_model import make_model, make_tokenizer, preference_rows
from trl import DPOConfig, DPOTrainer

said = []
handler = logging.Handler(logging.WARNING)
handler.emit = lambda record: said.append(record.getMessage())
for name in (None, "trl", "transformers", "datasets"):
    logging.getLogger(name).addHandler(handler)
model = make_model()
arguments = DPOConfig(output_dir="out", max_length=16, report_to="none", bf16=False)
rows = preference_rows([8] * 6 + [20] * 4)
trainer = DPOTrainer(model, model.__class__(model.config), arguments, train_dataset=rows, processing_class=make_tokenizer())
about = [message for message in said if "length" in message or "drop" in message.lower() or "truncat" in message]
print(f"{len(rows)} examples given, {len(trainer.train_dataset)} trained on; warnings about it: {about}")
if len(trainer.train_dataset) != 6 or about:
    sys.exit("changed: examples are kept, or their loss is told")
EOF
