import subprocess
import sys

from services.places import ROOT

# Loaded only by the running transformers adapter.
WITH_TORCH = {"logits_processors", "grammar_processor"}
OF_AN_EXTRA = {"llamacpp_model"}  # loaded only by the running llamacpp adapter; `make llamacpp` installs what it needs


def test_importing_workers_loads_neither_torch_nor_openvino_nor_transformers() -> None:
    modules = sorted(
        f"workers.{file.stem}" for file in (ROOT / "workers").glob("*.py") if file.stem not in WITH_TORCH | OF_AN_EXTRA
    )
    modules = [module for module in modules if not module.endswith("__")]
    heavy = "{'torch', 'openvino', 'openvino_genai', 'transformers'}"
    code = f"import sys, {', '.join(modules)}; print({heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.stdout.strip() == "set()", done.stdout + done.stderr
