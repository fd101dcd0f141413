#!/usr/bin/env bash
# openvino-genai 2026.4.1.0: ContinuousBatchingPipeline.step() holds Python's interpreter lock while it computes, so no
# other thread of the process runs.
#
# Expected: native code that computes for tens of milliseconds lets the lock go, as numpy and torch do.
# Seen (2 cores): 23 steps of 40 to 200 ms; a thread that sleeps 1 ms at a time wakes 0 times within them, once between two
# Our code: the engine runs in a process of its own; a thread beside it could neither renew leases nor take requests in time.
set -euo pipefail
# shellcheck source=findings/_setup.sh
source "$(dirname "$0")/_setup.sh"
install openvino-genai==2026.4.1.0
install_model

python - <<'EOF'
import statistics
import sys
import threading
import time

import openvino_genai

scheduler = openvino_genai.SchedulerConfig()
scheduler.cache_size = 1
pipeline = openvino_genai.ContinuousBatchingPipeline("model.gguf", scheduler, "CPU")
tokenizer = openvino_genai.Tokenizer("model.gguf")
options = openvino_genai.GenerationConfig()
options.max_new_tokens, options.ignore_eos, options.apply_chat_template = 24, True, False
handles = [pipeline.add_request(n, tokenizer.encode(f"Story {n}:").input_ids, options) for n in range(16)]
wakes, stepping = [], True


def sleep_again_and_again():
    while stepping:
        time.sleep(0.001)
        wakes.append(time.perf_counter())


pipeline.step()  # the prompts
thread = threading.Thread(target=sleep_again_and_again)
thread.start()
inside, steps = 0, []
while pipeline.has_non_finished_requests():
    begun = time.perf_counter()
    pipeline.step()
    ended = time.perf_counter()
    steps.append(ended - begun)
    inside += sum(begun + 0.002 < wake < ended - 0.002 for wake in list(wakes))
stepping = False
thread.join()
print(f"{len(steps)} steps of {statistics.median(steps) * 1000:.0f} ms: a thread that sleeps 1 ms at a time woke {inside} times in them")
print(f"(alone it wakes about {sum(steps) * 900:.0f} times in {sum(steps):.1f} s)")
if inside > len(steps):
    sys.exit("changed: another thread runs during a step")
EOF
