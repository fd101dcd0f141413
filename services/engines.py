"""The engines that a worker can run. A new engine is a file in `workers/` and a row here.

Settings accept these names, `workers/select_engine.py` makes the adapters, and the doctor looks for their packages. The
adapters are named, not imported: only a worker may load what they need.
"""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class EngineRow:
    """One engine.

    `adapter` is `module:class`. `auto` considers the engine on `device`; `gpus` are several CUDA devices. `advantage`
    says why it goes before the rows below it.
    """

    adapter: str
    packages: tuple[str, ...]  # that must be installed
    pip: str  # the package that brings them
    install: str  # the command that brings it when one is missing
    device: Literal["cpu", "gpus", "any"]
    advantage: str = ""


# `auto` takes the first that suits the machine and reads the model. The last one must suit all.
ENGINES = {
    "openvino": EngineRow(
        adapter="workers.openvino_engine:OpenVinoEngine",
        packages=("openvino_genai",),
        pip="openvino-genai",
        install="pip install openvino-genai",
        device="cpu",
        advantage="several times faster there than transformers",
    ),
    "llamacpp": EngineRow(
        adapter="workers.llamacpp_engine:LlamaCppEngine",
        packages=("llama_cpp",),
        pip="llama-cpp-python",
        install="make llamacpp",
        device="cpu",
        advantage="several times faster there than transformers, which would unpack the weights",
    ),
    "vllm": EngineRow(
        adapter="workers.vllm_engine:VllmEngine",
        packages=("vllm",),
        pip="vllm",
        install="make vllm",
        device="gpus",
        advantage="spreads the model over all of them, which transformers does not",
    ),
    "transformers": EngineRow(
        adapter="workers.transformers_engine:TransformersEngine",
        packages=("torch", "transformers", "accelerate"),
        pip="transformers",
        install="pip install transformers",
        device="any",
    ),
}
AUTO = "auto"
NAMES = (AUTO, *ENGINES)
