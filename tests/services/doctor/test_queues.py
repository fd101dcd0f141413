"""Questions that nobody answers, as Redis shows them."""

import pytest
import redis

from services.chat.requests import Requests
from services.connection.embedded import EmbeddedServer
from services.doctor import pipelines, queues
from services.jobs.jobs import Jobs
from services.serving.registry import Registry, WorkerInfo
from services.serving.trained_models import Claim, TrainedModel, TrainedModels
from services.settings import Settings
from services.wire.keys import VERSION, Keys
from services.wire.messages import ChatRequest, Message
from tests.servers import ClusterOfServers
from tests.services.doctor.told import only, told


def announce(client: redis.Redis, namespace: str, model: str, protocol: int = VERSION) -> None:
    info = WorkerInfo(f"w-{model}-{protocol}", model, "none", 4, 0, 0.0, 2048, "box", 1, 0.0, protocol=protocol)
    Registry(client, Keys(namespace)).announce(info)


def ask(client: redis.Redis, namespace: str, model: str) -> None:
    client.sadd(Keys(namespace).models, model)
    Requests(client, Keys(namespace)).submit(ChatRequest(f"r-{model}", "ann", model, (Message("user", "hi"),)))


def test_a_question_with_a_worker_is_ok(redis_client: redis.Redis, namespace: str) -> None:
    announce(redis_client, namespace, "m")
    ask(redis_client, namespace, "m")
    keys = Keys(namespace)
    assert only(queues.check_queues(redis_client, keys)) == ("ok", "1 request(s) wait, each for a live worker")
    assert only(queues.check_workers(redis_client, keys)) == ("ok", "1 for m")
    assert only(queues.check_dead_letters(redis_client, keys)) == ("ok", "none")


def test_a_question_without_a_worker_is_wrong(redis_client: redis.Redis, namespace: str) -> None:
    ask(redis_client, namespace, "m")
    level, message = only(queues.check_queues(redis_client, Keys(namespace)))
    assert level == "wrong" and message == "1 request(s) wait for model m, which no worker serves"
    assert only(queues.check_workers(redis_client, Keys(namespace)))[0] == "warning"


def test_a_worker_of_another_version_serves_nobody(redis_client: redis.Redis, namespace: str) -> None:
    announce(redis_client, namespace, "m", VERSION + 1)
    ask(redis_client, namespace, "m")
    level, message = only(queues.check_workers(redis_client, Keys(namespace)))
    assert level == "warning" and f"speaks protocol {VERSION + 1}, this installation {VERSION}" in message
    assert only(queues.check_queues(redis_client, Keys(namespace)))[0] == "wrong"


def test_a_trained_model_that_cannot_be_loaded_is_wrong_and_one_that_loads_is_not(
    redis_client: redis.Redis, namespace: str
) -> None:
    keys = Keys(namespace)
    trained = TrainedModels(redis_client, keys)
    trained.register(TrainedModel("july", "/gone", "base", "job", 0.0))
    trained.serve("july")
    ask(redis_client, namespace, "july")
    assert trained.keep_claim(Claim("july", "me"))
    assert only(queues.check_queues(redis_client, keys))[0] == "note"
    trained.release(Claim("july", "me"))
    trained.complain("july", "should be in /gone")
    found = told(queues.check_queues(redis_client, keys))
    assert found[0] == ("wrong", "model july cannot be loaded: should be in /gone")
    assert found[1] == ("wrong", "1 request(s) wait for model july, which no worker serves")


def test_jobs_that_nobody_does_are_a_warning_and_no_jobs_a_note(
    redis_server: EmbeddedServer | ClusterOfServers,
    redis_client: redis.Redis,
    namespace: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if isinstance(redis_server, ClusterOfServers):
        pytest.skip("Celery cannot use a cluster")
    monkeypatch.setattr(pipelines, "PING_S", 0.2)
    settings = Settings(redis_url=redis_server.url, namespace=namespace)
    level, message = only(pipelines.check_pipelines(redis_client, settings))
    assert level == "note" and message == "no worker, no trainings, no beat runs; 0 job(s) are unfinished"
    Jobs(redis_client, Keys(namespace)).submit("j1", "train", "j1", {})
    level, message = only(pipelines.check_pipelines(redis_client, settings))
    assert level == "warning" and "1 job(s) are unfinished, and no worker and no trainings and no beat runs" in message


def test_a_broker_that_is_not_there_is_wrong_and_never_waited_for(redis_client: redis.Redis, namespace: str) -> None:
    settings = Settings(namespace=namespace, broker_url="redis://127.0.0.1:1/0")
    level, message = only(pipelines.check_pipelines(redis_client, settings))
    assert level == "wrong" and "Redis does not answer" in message
    cluster = Settings(namespace=namespace, redis_url="redis+cluster://127.0.0.1:1")
    assert "which Celery cannot use" in only(pipelines.check_pipelines(redis_client, cluster))[1]
