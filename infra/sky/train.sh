#!/usr/bin/env bash
# What train-vicuna.yaml and train-alpaca.yaml run on every node: one process for each GPU of all nodes.
#
#   bash infra/sky/train.sh PRESET_FILE RUN_NAME [--set field=value]…
#
# With TRAINING_CONFIG in the environment, which `chatserver train` sets, that is the whole configuration. The exit code is
# the training program's: 33 means stopped with everything saved, and managed jobs then start it again.
set -euo pipefail

preset=$1 run_name=$2
shift 2
options=("$@")

python=${TRAIN_PYTHON:-}
[ -n "$python" ] || python="$HOME/chatserver-env/$(hostname)/bin/python"

if [ -n "${TRAINING_CONFIG:-}" ]; then
  mkdir -p "$HOME/chatserver-run"
  config="$HOME/chatserver-run/config-$SKYPILOT_NODE_RANK.yaml"
  printf '%s\n' "$TRAINING_CONFIG" >"$config"
  options=()
else
  case "$GC_SCALE" in
    '' | *[!0-9]* | 0*) echo "GC_SCALE='$GC_SCALE' is not a whole number of 1 or more" >&2; exit 2 ;;
  esac
  config=$preset
  [ "$USE_FLASH_ATTN" = 0 ] && attention=sdpa || attention=auto
  options+=(--set "seq_len=$SEQ_LEN" --set "per_device_tokens=$((2048 * GC_SCALE))" --set "attention=$attention")
  [ -z "${WANDB_API_KEY:-}" ] || options+=(--set wandb=true)
fi

# Empty is not the same as absent to the libraries that read them.
[ -n "${WANDB_API_KEY:-}" ] || unset WANDB_API_KEY
[ -n "${HF_TOKEN:-}" ] || unset HF_TOKEN

read -ra files <<<"${DATA/#\~/$HOME}"
data=()
for file in "${files[@]}"; do
  data+=(--data "${file/#\~/$HOME}")
done

if [ "$SKYPILOT_NUM_NODES" = 1 ]; then
  nodes=(--standalone)  # takes a free port
else
  nodes=(--nnodes "$SKYPILOT_NUM_NODES" --node-rank "$SKYPILOT_NODE_RANK"
    --master-addr "${SKYPILOT_NODE_IPS%%$'\n'*}" --master-port 12375)
fi

exec "$python" -m pipelines.training.torchrun "${nodes[@]}" --nproc-per-node "${PROCESSES:-$SKYPILOT_NUM_GPUS_PER_NODE}" \
  -m pipelines.training --config "$config" "${options[@]}" "${data[@]}" --out "${OUT:-/artifacts/$run_name}"
