"""What a training of an adapter leaves: the adapter, which is served on its base, and the merged model.

One run for all tests of this file.
"""

import shutil
import uuid
from pathlib import Path

import pytest

from pipelines.training.fitting import limits_of
from pipelines.training.manifest import finished_manifest
from services.chat.journal import Journal
from services.chat.requests import Requests
from services.errors import ConfigurationError
from services.machine.files import fault_of
from services.models.base_weights import weights_digest
from services.models.catalogue import resolve
from services.serving.trained_models import TrainedModel, TrainedModels
from services.tokens.tokenization import ChatTokenizer
from services.wire.messages import ChatRequest, Message, SamplingOptions
from tests.end_to_end.system import System, running_system, wait_until
from tests.pipelines.training.runs import Material, Run, finished

pytestmark = pytest.mark.timeout(600)  # starts processes that load torch
QUESTION = [Message("user", "What is 3 plus 3?")]
NUM_TOKENS = 24
LOAD_S = 120.0
LORA = ("method=lora", "max_steps=4", "learning_rate=0.1", "eval_fraction=0.3", "lora_r=4")


@pytest.fixture(scope="module")
def adapted(material: Material, tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Path]:
    out = tmp_path_factory.mktemp("adapted")
    return finished(material, out, *LORA), out


def test_an_adapter_is_merged_into_a_plain_model(adapted: tuple[Run, Path], material: Material) -> None:
    from transformers import AutoModelForCausalLM

    run, out = adapted
    assert run.events("eval")[-1]["step"] == 4
    assert run.events("finished")[0]["model"] == str(out / "model")
    before = AutoModelForCausalLM.from_pretrained(material.base).state_dict()
    after = AutoModelForCausalLM.from_pretrained(out / "model").state_dict()
    assert before.keys() == after.keys()
    changed = {name.split(".")[-2] for name in before if not before[name].equal(after[name])}
    assert changed == {"q_proj", "v_proj"}


def test_the_adapter_beside_it_names_its_base_and_is_whole(adapted: tuple[Run, Path], material: Material) -> None:
    folder = adapted[1] / "adapter"
    manifest = finished_manifest(folder)
    assert manifest is not None and fault_of(folder, "manifest.json") == ""
    assert {"adapter_model.safetensors", "adapter_config.json", "tokenizer.json"} <= set(manifest["files"])
    assert manifest["base"] == str(material.base)
    assert manifest["base_weights"] == weights_digest(resolve(str(material.base)))
    assert manifest["proof"]["saved_loss"] == pytest.approx(manifest["proof"]["trained_loss"], abs=1e-4)
    assert resolve(str(folder)).base == resolve(str(material.base))
    assert (folder / "adapter_model.safetensors").stat().st_size < 20_000


def test_peft_loads_the_adapter_by_itself(adapted: tuple[Run, Path]) -> None:
    import torch
    from peft import AutoPeftModelForCausalLM
    from transformers import AutoModelForCausalLM

    ids = torch.arange(100, 120)[None]
    with torch.no_grad():
        found = AutoPeftModelForCausalLM.from_pretrained(str(adapted[1] / "adapter")).eval()(input_ids=ids).logits
        merged = AutoModelForCausalLM.from_pretrained(adapted[1] / "model").eval()(input_ids=ids).logits
    assert torch.allclose(found, merged, atol=1e-5)


def test_only_the_adapter_is_saved_if_only_it_is_asked_for(
    adapted: tuple[Run, Path], material: Material, tmp_path: Path
) -> None:
    """From the checkpoints of a run that saved both: what is saved does not make it another training."""
    shutil.copytree(adapted[1] / "checkpoints", tmp_path / "checkpoints")
    run = finished(material, tmp_path, *LORA, "save=adapter")
    assert not run.events("step")
    assert run.events("finished")[0]["model"] == str(tmp_path / "adapter")
    assert not (tmp_path / "model").exists()
    weights = [folder / "adapter" / "adapter_model.safetensors" for folder in (tmp_path, adapted[1])]
    assert weights[0].read_bytes() == weights[1].read_bytes()


def test_an_adapter_is_no_model_to_train(adapted: tuple[Run, Path]) -> None:
    with pytest.raises(
        ConfigurationError, match=r"/adapter' is an adapter on '.*'; train on that model, or on the merged"
    ):
        limits_of(resolve(str(adapted[1] / "adapter")))


def test_an_adapter_is_served_on_its_base_as_the_merged_model_answers(
    adapted: tuple[Run, Path], material: Material, tokenizer: ChatTokenizer, tmp_path: Path
) -> None:
    with running_system(tmp_path, slots=2, cache_gib=0.05, repeatable=1) as system:
        trained = TrainedModels(system.redis, system.keys)
        made = TrainedModel.from_manifest(adapted[1] / "adapter", name="tiny-adapter", job="j1", created_s=0.0)
        assert trained.register(made).is_adapter
        process = system.start("workers", model="tiny-adapter")
        system.wait_for_worker(process, LOAD_S)
        found = answered(system)
    assert found == greedy(adapted[1] / "model", tokenizer)
    assert found != greedy(material.base, tokenizer)


def answered(system: System) -> list[int]:
    """The tokens of an answer that a worker journalled."""
    rid = uuid.uuid4().hex
    options = SamplingOptions(max_new_tokens=NUM_TOKENS, temperature=0)
    Requests(system.redis, system.keys).submit(ChatRequest(rid, "u", "tiny-adapter", tuple(QUESTION), options))
    journal = Journal(system.redis, system.keys)
    wait_until(lambda: (head := journal.head(rid)) and head.ended, "the answer", LOAD_S)
    read = journal.read(rid)
    assert read is not None and read[0].status == "finished"
    return [token_id for event in read[1] for token_id in event.ids]


def greedy(folder: Path, tokenizer: ChatTokenizer) -> list[int]:
    """The tokens that a model gives, one forward pass for each."""
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    ids = list(tokenizer.render(QUESTION))
    prompt = len(ids)
    with torch.no_grad():
        while len(ids) < prompt + NUM_TOKENS:
            token_id = int(model(torch.tensor([ids])).logits[0, -1].argmax())
            if token_id in tokenizer.stop_token_ids:
                break
            ids.append(token_id)
    return ids[prompt:]
