#!/usr/bin/env bash
# skypilot 0.14.1: `Task.from_yaml_config` takes the fields out of the dictionary that it is given. After the call that is
# empty, and a second task made from it, for another try or another region, is valid and does nothing.
#
# Expected: a constructor leaves its argument as it is; or a task without a command is refused.
# Seen:     first task: run 'python train.py', 8 CPUs;  the dictionary is {} then;  second task: run None, no error
# Our code: hands over a deep copy.
set -euo pipefail
# shellcheck source=findings/_setup.sh
source "$(dirname "$0")/_setup.sh"
install skypilot==0.14.1
export HOME=$work SKYPILOT_DISABLE_USAGE_COLLECTION=1

python - <<'EOF'
import sys

import sky

recipe = {"name": "train", "run": "python train.py", "resources": {"cpus": "8"}, "envs": {"EPOCHS": "3"}}
first = sky.Task.from_yaml_config(recipe)
print(f"first task: run {first.run!r}, {first.resources}, {first.envs}; the dictionary then: {recipe}")
second = sky.Task.from_yaml_config(recipe)
print(f"second task: run {second.run!r}, {second.resources}, {second.envs}")
if recipe or second.run is not None:
    sys.exit("changed: the dictionary is left as it was")
EOF
