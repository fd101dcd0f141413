"""What the registry says of models: which one answers who chooses none, and how their answers are sampled."""

from redis import Redis

from services.command.access import choose_model
from services.serving.overview import offered_rows
from services.serving.registry import Registry, WorkerInfo
from services.wire.keys import Keys
from services.wire.messages import SamplingDefaults


def announce(registry: Registry, model: str, started: float, sampling: str = "") -> None:
    registry.announce(
        WorkerInfo(f"w-{model}-{started}", model, "none", 4, 0, 0.0, 100, "h", 1, started, sampling=sampling)
    )


def names(redis: Redis, keys: Keys) -> list[str]:
    return [row["name"] for row in offered_rows(redis, keys)]


def test_the_model_that_is_served_the_longest_answers_who_chooses_none(redis_client: Redis, namespace: str) -> None:
    """The alphabet chose: a model named `aya` that somebody tried out took over everybody's questions."""
    keys = Keys(namespace)
    registry = Registry(redis_client, keys)
    announce(registry, "mistral", 100.0)
    announce(registry, "aya", 200.0)
    assert names(redis_client, keys) == ["mistral", "aya"]
    assert choose_model(registry, None) == "mistral"
    announce(registry, "mistral", 300.0)  # one worker more, or a restarted one beside the first
    assert choose_model(registry, None) == "mistral"


def test_the_packaged_demonstration_answers_only_where_no_other_model_is_served(
    redis_client: Redis, namespace: str
) -> None:
    keys = Keys(namespace)
    registry = Registry(redis_client, keys)
    announce(registry, "smollm2-135m", 100.0)
    assert choose_model(registry, None) == "smollm2-135m"
    announce(registry, "zephyr", 200.0)
    assert choose_model(registry, None) == names(redis_client, keys)[0] == "zephyr"
    registry.leave("w-zephyr-200.0")
    assert choose_model(registry, None) == names(redis_client, keys)[0] == "smollm2-135m"


def test_a_model_supports_what_all_its_workers_support(redis_client: Redis, namespace: str) -> None:
    keys = Keys(namespace)
    registry = Registry(redis_client, keys)
    for name, supports in (("one", "min_p thinking"), ("two", "prompt thinking"), ("mixed", "thinking"), ("mixed", "")):
        started = float(len(registry.workers()))
        registry.announce(
            WorkerInfo(f"w-{name}-{started}", name, "none", 4, 0, 0.0, 9, "h", 1, started, supports=supports)
        )
    found = {row["name"]: row["supports"] for row in offered_rows(redis_client, keys)}
    assert found == {"one": ("min_p", "thinking"), "two": ("prompt", "thinking"), "mixed": ()}
    assert registry.supports("one") == ("min_p", "thinking") and registry.supports("mixed") == ()
    assert registry.supports("nobody serves it") is None


def test_front_ends_learn_how_a_model_is_sampled(redis_client: Redis, namespace: str) -> None:
    keys = Keys(namespace)
    registry = Registry(redis_client, keys)
    announce(registry, "m", 100.0, '{"temperature": 0.2, "top_k": 20, "of_a_later_build": 1}')
    announce(registry, "older", 200.0)
    announce(registry, "strange", 300.0, "[")
    found = {row["name"]: row["sampling"] for row in offered_rows(redis_client, keys)}
    usual = {"temperature": 0.7, "top_p": 1.0, "top_k": 0, "repetition_penalty": 1.0}
    assert found == {"m": {**usual, "temperature": 0.2, "top_k": 20}, "older": usual, "strange": usual}
    assert {model.name: model.sampling for model in registry.models()}["older"] == SamplingDefaults()


def test_the_presence_of_an_older_build_tells_neither_version_nor_memory(redis_client: Redis, namespace: str) -> None:
    """And an older reader leaves out what it does not know."""
    keys = Keys(namespace)
    registry = Registry(redis_client, keys)
    registry.announce(WorkerInfo("w", "m", "none", 4, 0, 0.0, 9, "h", 1, 1.0, version="0.2.0", memory_mib=700))
    redis_client.hset(keys.worker("w"), "of a newer build", "x")
    (new,) = registry.workers()
    assert (new.version, new.memory_mib) == ("0.2.0", 700)
    redis_client.hdel(keys.worker("w"), "version", "memory_mib")
    (old,) = registry.workers()
    assert (old.version, old.memory_mib) == ("", 0)
