#!/usr/bin/env bash
# transformers 5.17.0, continuous batching: a cancelled request gets no last output. Who reads its stream until
# `is_finished()` waits for ever.
#
# Expected: each request ends with one output that says how (the library has a status for failed ones).
# Seen:     after cancel_request("long") its outputs stop within a step, none of them finished; a neighbour goes on and
#           finishes; 5 s later there is still nothing
# Our code: the engine's adapter puts an end of its own into the queue of outputs when it cancels.
set -euo pipefail
# shellcheck source=findings/_setup.sh
source "$(dirname "$0")/_setup.sh"
install transformers==5.17.0 accelerate==1.15.0 datasets==5.0.1 torch==2.13.0

python - <<'EOF'
import sys
import time

from _tiny_model import make_model
from transformers import GenerationConfig
from transformers.generation import ContinuousBatchingConfig

greedy = GenerationConfig(do_sample=False, eos_token_id=-1, pad_token_id=0)
cache = ContinuousBatchingConfig(num_blocks=16, max_batch_tokens=64, block_size=32)
with make_model().eval().continuous_batching_context_manager(
    generation_config=greedy, continuous_batching_config=cache
) as manager:
    manager.add_request([5, 6, 7], request_id="long", max_new_tokens=300, streaming=True)
    while not manager.get_result(timeout=30).generated_tokens:
        pass
    manager.cancel_request("long")
    manager.add_request([5, 6, 8], request_id="neighbour", max_new_tokens=8)
    ends, deadline = set(), time.monotonic() + 5
    while time.monotonic() < deadline:
        output = manager.get_result(timeout=1)
        if output is not None and output.is_finished():
            ends.add(output.request_id)
    print("requests with an end within 5 s of the cancel:", sorted(ends))
if ends != {"neighbour"}:
    sys.exit("changed: the cancelled request is told to its reader, or its neighbour is not")
EOF
