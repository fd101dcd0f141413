#!/usr/bin/env bash
# openvino-genai 2026.4.1.0: with greedy decoding, an answer depends on which other requests are in the same batch.
#
# Expected: greedy decoding is a function of the prompt; sixteen prompts together give what each gives alone.
# Seen (a CPU with AVX-512): 14 of 16 answers of 40 tokens are the same. Which differ depends on the processor.
# Our code: a takeover is judged against the journal, never against a second run of the same prompt.
set -euo pipefail
# shellcheck source=findings/_setup.sh
source "$(dirname "$0")/_setup.sh"
install openvino-genai==2026.4.1.0
install_model

python - <<'EOF'
import sys

import openvino_genai

scheduler = openvino_genai.SchedulerConfig()
scheduler.cache_size, scheduler.max_num_seqs = 1, 16
pipeline = openvino_genai.ContinuousBatchingPipeline("model.gguf", scheduler, "CPU")
tokenizer = openvino_genai.Tokenizer("model.gguf")
options = openvino_genai.GenerationConfig()
options.max_new_tokens, options.ignore_eos, options.apply_chat_template = 40, True, False


def answers(prompts):
    handles = [
        pipeline.add_request(number, tokenizer.encode(prompt, add_special_tokens=False).input_ids, options)
        for number, prompt in enumerate(prompts)
    ]
    while pipeline.has_non_finished_requests():
        pipeline.step()
    return [handle.read_all()[0].generated_ids for handle in handles]


ask = "<|im_start|>user\nTell me about the number {} and the city of Paris.<|im_end|>\n<|im_start|>assistant\n"
prompts = [ask.format(number) for number in range(16)]
together, again = answers(prompts), answers(prompts)
alone = [answers([prompt])[0] for prompt in prompts]
same = sum(one == other for one, other in zip(together, alone, strict=True))
print(f"together twice: {sum(map(list.__eq__, together, again))} of 16 the same; together and alone: {same} of 16")
if same == 16:
    sys.exit("changed (or another processor): every answer is the same alone and in company")
EOF
