import hashlib
import json
import threading
from pathlib import Path

import pytest
import redis

from services.chat.requests import Requests
from services.errors import ConfigurationError, InvalidRequest, UnknownModel
from services.machine.files import fault_of
from services.models.catalogue import resolve
from services.models.model_folder import read_manifest
from services.serving.registry import Registry, WorkerInfo
from services.serving.trained_models import CLAIM_TTL_S, Claim, TrainedModel, TrainedModels, find_model
from services.wire.keys import Keys
from services.wire.messages import ChatRequest, Message

NOW_S = 1_700_000_000.0


@pytest.fixture
def trained(redis_client: redis.Redis, namespace: str) -> TrainedModels:
    return TrainedModels(redis_client, Keys(namespace))


def written(folder: Path, *, base: str = "smollm2-135m") -> Path:
    """A folder as a training leaves it; the manifest last."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text('{"model_type": "llama"}')
    (folder / "model.safetensors").write_bytes(b"weights")
    files = {
        path.name: {"bytes": path.stat().st_size, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
        for path in sorted(folder.iterdir())
    }
    data, metrics = [{"path": "/d.jsonl", "sha256": "ab"}], {"loss": 0.5, "eval_loss": None, "steps": 12}
    fields = {"name": folder.name, "base": base, "created_s": 1, "data": data, "metrics": metrics}
    (folder / "manifest.json").write_text(json.dumps({**fields, "files": files}))
    return folder


def model(name: str = "july", *, job: str = "j1", path: str = "/runs/july/model", base: str = "opt") -> TrainedModel:
    return TrainedModel(name, path, base, job, NOW_S)


def worker(name: str) -> WorkerInfo:
    return WorkerInfo("w1", name, "none", 4, 0, 0.0, 100, "host", 1, NOW_S)


# -- registering


def test_a_finished_folder_says_what_its_model_comes_from(tmp_path: Path) -> None:
    found = TrainedModel.from_manifest(written(tmp_path / "model"), name="july", job="j1", created_s=NOW_S)
    assert (found.base, found.loss, found.step, found.data) == ("smollm2-135m", 0.5, 12, ("ab",))
    assert found.path == str(tmp_path / "model") and len(found.manifest) == 64


def test_a_folder_whose_manifest_is_not_written_yet_is_refused(tmp_path: Path) -> None:
    (written(tmp_path / "model") / "manifest.json").unlink()
    with pytest.raises(ConfigurationError, match=r"is not complete: it has no manifest.json, which is written last"):
        TrainedModel.from_manifest(tmp_path / "model", name="july", job="j1", created_s=NOW_S)


def test_registering_again_changes_nothing(trained: TrainedModels) -> None:
    first = trained.register(model())
    assert trained.register(model()) == first
    assert list(trained.list()) == [first]


def test_a_second_model_of_the_same_name_gets_a_number(trained: TrainedModels) -> None:
    trained.register(model())
    second = trained.register(model(job="j2", path="/runs/other/model"))
    assert second.name == "july-2"
    assert trained.register(model(job="j2", path="/runs/other/model")).name == "july-2"
    assert trained.get("july").job == "j1"


def test_the_name_of_a_packaged_model_or_of_what_workers_serve_is_taken(
    trained: TrainedModels, redis_client: redis.Redis, namespace: str
) -> None:
    Registry(redis_client, Keys(namespace)).announce(worker("vicuna"))
    assert trained.register(model("vicuna")).name == "vicuna-2"
    assert trained.register(model("smollm2-135m", job="j2")).name == "smollm2-135m-2"


def test_many_that_register_at_once_get_one_name_each(trained: TrainedModels) -> None:
    jobs = ["a", "b", "c", "d", "a", "b", "c", "d"]
    threads = [
        threading.Thread(target=lambda job=job: trained.register(model(job=job, path=f"/{job}"))) for job in jobs
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(each.name for each in trained.list()) == ["july", "july-2", "july-3", "july-4"]
    assert sorted(each.job for each in trained.list()) == ["a", "b", "c", "d"]


def test_lineage_goes_back_to_what_came_from_elsewhere(trained: TrainedModels) -> None:
    trained.register(model("one", base="facebook/opt-350m"))
    trained.register(model("two", job="j2", path="/two", base="one"))
    three = trained.register(model("three", job="j3", path="/three", base="/two"))
    assert three.lineage == ("facebook/opt-350m", "one", "two")


def test_forgetting_needs_that_nobody_serves_it_and_nothing_waits(
    trained: TrainedModels, redis_client: redis.Redis, namespace: str
) -> None:
    trained.register(model())
    trained.serve("july")
    with pytest.raises(InvalidRequest, match="stop it first: `chatserver models stop july`"):
        trained.remove("july")
    trained.stop_serving("july")
    requests = Requests(redis_client, Keys(namespace))
    requests.submit(ChatRequest("r", "u", "july", (Message("user", "hello"),)))
    with pytest.raises(InvalidRequest, match="1 requests wait for model 'july'"):
        trained.remove("july")
    requests.cancel("r", "u")
    trained.remove("july")
    with pytest.raises(UnknownModel, match="no trained model has the name 'july'; registered: none yet"):
        trained.get("july")
    with pytest.raises(UnknownModel):
        requests.submit(ChatRequest("r2", "u", "july", (Message("user", "hello"),)))


# -- finding


def test_a_registered_name_is_found_before_a_hub_id_of_the_same_spelling(
    trained: TrainedModels, tmp_path: Path
) -> None:
    trained.register(model(path=str(written(tmp_path / "model"))))
    source = find_model("july", trained.find)
    assert (source.name, source.kind, source.path) == ("july", "folder", tmp_path / "model")
    assert find_model("facebook/opt-350m", trained.find).kind == "hub"


def test_a_folder_of_jobs_in_the_way_does_not_hide_a_registered_name(
    trained: TrainedModels, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained.register(model(path=str(written(tmp_path / "july" / "model"))))
    monkeypatch.chdir(tmp_path)
    assert find_model("july", trained.find).path == tmp_path / "july" / "model"


def test_a_model_in_a_bucket_is_refused_with_the_remedy(trained: TrainedModels) -> None:
    trained.register(model(path="s3://bucket/july/model"))
    with pytest.raises(
        ConfigurationError,
        match=r"SERVED_NAME=july infra/sky/serve-worker.yaml.*aws s3 sync s3://bucket/july/model july",
    ):
        find_model("july", trained.find)


def test_a_folder_that_is_not_on_this_machine_is_refused_with_the_remedy(trained: TrainedModels) -> None:
    trained.register(model(path="/nowhere/model"))
    with pytest.raises(ConfigurationError, match="no folder on this machine; mount or copy it there"):
        find_model("july", trained.find)


# -- folders


def test_a_half_copied_model_is_never_loaded(tmp_path: Path) -> None:
    folder = written(tmp_path / "copy")
    assert resolve(str(folder)).path == folder
    (folder / "model.safetensors").write_bytes(b"wei")
    with pytest.raises(ConfigurationError, match=r"model.safetensors has 3 bytes instead of 7.*copy it again"):
        resolve(str(folder))
    (folder / "model.safetensors").unlink()
    with pytest.raises(ConfigurationError, match=r"model\.safetensors is not there"):
        resolve(str(folder))


def test_what_a_training_still_writes_is_never_loaded(tmp_path: Path) -> None:
    (tmp_path / "checkpoints" / "checkpoint-7").mkdir(parents=True)
    (tmp_path / "checkpoints" / "checkpoint-7" / "config.json").write_text("{}")
    (written(tmp_path / "model") / "manifest.json").unlink()
    with pytest.raises(ConfigurationError, match=r"it has no manifest\.json"):
        resolve(str(tmp_path / "model"))
    with pytest.raises(ConfigurationError, match=r"it has no COMPLETE\.json"):
        resolve(str(tmp_path / "checkpoints" / "checkpoint-7"))


def test_checksums_tell_a_copy_that_has_the_right_length_only(tmp_path: Path) -> None:
    folder = written(tmp_path / "model")
    assert fault_of(folder, "manifest.json") == ""
    (folder / "model.safetensors").write_bytes(b"weighty"[:7])
    assert read_manifest(folder).fields["name"] == "model"
    assert fault_of(folder, "manifest.json") == "the contents of model.safetensors have changed"


@pytest.mark.parametrize("text", ["", "[]", '{"files": {"a": 3}}', '{"files": {"a": {"bytes": "x"}}}'])
def test_a_manifest_that_is_none_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(ConfigurationError, match=r"manifest\.json is not the manifest of a trained model"):
        read_manifest(tmp_path)


# -- wanting and claiming


def test_a_wanted_model_takes_questions_before_it_is_loaded(
    trained: TrainedModels, redis_client: redis.Redis, namespace: str
) -> None:
    trained.register(model())
    assert not trained.is_wanted("july")
    trained.serve("july")
    Requests(redis_client, Keys(namespace)).submit(ChatRequest("r", "u", "july", (Message("user", "hello"),)))
    assert [each.name for each in trained.wanted()] == ["july"]


def test_only_a_registered_model_can_be_wanted(trained: TrainedModels) -> None:
    with pytest.raises(UnknownModel, match="no trained model has the name 'nine'"):
        trained.serve("nine")


def test_the_longest_wanted_comes_first(trained: TrainedModels) -> None:
    for name in ("b", "a"):
        trained.register(model(name, job=name, path=f"/{name}"))
        trained.serve(name)
    trained.serve("b")
    assert [each.name for each in trained.wanted()] == ["b", "a"]


def test_what_a_worker_serves_or_somebody_loads_waits_for_nobody(
    trained: TrainedModels, redis_client: redis.Redis, namespace: str
) -> None:
    registry = Registry(redis_client, Keys(namespace))
    trained.register(model())
    trained.serve("july")
    registry.announce(worker("july"))
    assert trained.unserved() == []
    registry.leave("w1")
    assert [each.name for each in trained.unserved()] == ["july"]
    assert trained.keep_claim(Claim("july", "me"))
    assert trained.unserved() == []


def test_a_claim_belongs_to_one_and_only_its_holder_gives_it_back(
    trained: TrainedModels, redis_client: redis.Redis, namespace: str
) -> None:
    mine, other = Claim("july", "me"), Claim("july", "you")
    assert trained.keep_claim(mine) and trained.keep_claim(mine)
    assert not trained.keep_claim(other)
    trained.release(other)
    assert trained.loader("july") == "me"
    assert 0 < redis_client.ttl(Keys(namespace).claim("july")) <= CLAIM_TTL_S
    trained.release(mine)
    assert trained.keep_claim(other) and not trained.keep_claim(mine)


def test_what_went_wrong_is_forgotten_when_it_is_wanted_again(trained: TrainedModels) -> None:
    trained.register(model())
    trained.complain("july", "no room")
    assert trained.trouble("july") == "no room"
    trained.serve("july")
    assert trained.trouble("july") == ""
