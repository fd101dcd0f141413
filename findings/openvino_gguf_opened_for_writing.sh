#!/usr/bin/env bash
# openvino-genai 2026.4.1.0: loading a GGUF opens the file for reading *and writing*, though nothing is written. A model
# that its user may not write (a read-only volume, an image's layer, a shared folder) does not load.
#
# Expected: a model file is read.
# Seen:     owner's right to write kept: loaded.  File of mode 444: RuntimeError … open … model.gguf
# Our code: a file that may not be written is copied once into the state folder; the engine gets the copy.
set -euo pipefail
# shellcheck source=findings/_setup.sh
source "$(dirname "$0")/_setup.sh"
install openvino-genai==2026.4.1.0
install_model
chmod 755 "$work"

python - <<'EOF'
import os
import sys
from pathlib import Path

import openvino_genai

model = Path("model.gguf")
scheduler = openvino_genai.SchedulerConfig()
scheduler.cache_size = 1


def load():
    try:
        openvino_genai.ContinuousBatchingPipeline(str(model), scheduler, "CPU")
    except RuntimeError as error:
        return "refused: " + " ".join(str(error).split())[-200:]
    return "loaded"


writable = load()
model.chmod(0o444)
if os.geteuid() == 0:  # root may write everything: go on as somebody who owns nothing here
    os.setuid(65534)
readable = model.open("rb").read(4)
read_only = load()
print(f"with the right to write: {writable}")
print(f"without it, where Python reads {readable!r}: {read_only}")
if writable != "loaded" or not read_only.startswith("refused"):
    sys.exit("changed: a read-only GGUF loads, or none does")
EOF
