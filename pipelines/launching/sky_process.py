"""SkyPilot's side of the pipe: the one file that imports SkyPilot. It runs in SkyPilot's environment, without ours.

    python -P sky_process.py

`pipelines/launching/sky_pipe.py` starts it. Requests come on stdin, replies go to stdout, each a JSON object on a line:

    {"call": "clusters", "arguments": {"names": ["train-x"]}}
    {"line": "…"}                                           any number, of a call that streams
    {"result": …}  or  {"error": {"kinds": ["ClusterDoesNotExist", …], "message": "…"}}

`kinds` are the names of the exception's class and its bases. What SkyPilot prints goes to stderr. The process ends when
its stdin does, in the middle of a call too: its parent has ended then. A request's body holds the plain values of
secrets, so only single fields of the service's answers are read, and no answer is sent or printed as a whole.
"""

import json
import logging
import os
import queue
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any, TextIO

NOT_MACHINES = ("file_mounts", "workdir")  # of a task: an estimate must not look for buckets


def main() -> None:
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    requests: queue.SimpleQueue[str] = queue.SimpleQueue()
    threading.Thread(target=_read, args=(requests,), daemon=True).start()
    while True:
        request = json.loads(requests.get())
        _say(replies, _answer(replies, CALLS[request["call"]], request["arguments"]))


def _read(requests: "queue.SimpleQueue[str]") -> None:
    for line in sys.stdin:
        requests.put(line)
    os._exit(0)


def _answer(replies: TextIO, call: Callable[..., Any], arguments: dict[str, Any]) -> dict[str, Any]:
    try:
        result = call(**arguments)
        if isinstance(result, Iterator):
            for line in result:
                _say(replies, {"line": line})
            result = None
    except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever SkyPilot, its service or a cloud raises
        return {"error": {"kinds": [kind.__name__ for kind in type(error).__mro__], "message": str(error)}}
    return {"result": result}


def _say(replies: TextIO, reply: dict[str, Any]) -> None:
    replies.write(json.dumps(reply) + "\n")
    replies.flush()


def _get(request: Any) -> Any:
    from sky.client import sdk

    return sdk.get(request)


# -- what there is ----------------------------------------------------------------------------------------------------


def optimize(config: dict[str, Any]) -> Iterator[str]:
    """The optimizer's table. If no API server runs on this machine, none is started: this process asks the clouds."""
    from sky.client import sdk
    from sky.utils import dag_utils

    task = _task({name: value for name, value in config.items() if name not in NOT_MACHINES}, {})
    dag = dag_utils.convert_entrypoint_to_dag(task)
    lines = _Lines()
    if _server_answers():
        sdk.stream_and_get(sdk.optimize(dag), output_stream=lines)
    else:
        _optimize_here(dag, lines)
    yield from lines.taken


def _server_answers() -> bool:
    """A server elsewhere counts, whether it answers or not: it is not ours to start."""
    from sky.server import common

    if not common.is_api_server_local():
        return True
    return common.get_api_server_status().status is not common.ApiServerStatus.UNHEALTHY


def _optimize_here(dag: Any, lines: "_Lines") -> None:
    from sky import core

    logger = logging.getLogger("sky")
    kept = logger.handlers[:]
    logger.handlers[:] = [logging.StreamHandler(lines)]
    logger.handlers[0].setLevel(logging.INFO)
    try:
        core.optimize(dag)
    finally:
        logger.handlers[:] = kept


class _Lines:
    """A stream that keeps what is written to it."""

    def __init__(self) -> None:
        self.taken: list[str] = []

    def write(self, text: str) -> int:
        self.taken.append(text)
        return len(text)

    def flush(self) -> None: ...


# -- launching --------------------------------------------------------------------------------------------------------


def _task(config: dict[str, Any], secrets: dict[str, str]) -> Any:
    import sky

    task = sky.Task.from_yaml_config(config)
    task.update_secrets(secrets)
    return task


def launch_cluster(config: dict[str, Any], name: str, secrets: dict[str, str], idle_min: int | None) -> str:
    import sky

    task = _task(config, secrets)
    return str(sky.launch(task, cluster_name=name, idle_minutes_to_autostop=idle_min, down=idle_min is not None))


def launch_job(config: dict[str, Any], name: str, secrets: dict[str, str]) -> str:
    import sky

    return str(sky.jobs.launch(_task(config, secrets), name=name))


def request(id: str) -> list[dict[str, str]]:
    import sky

    return [_request(each) for each in sky.api_status(request_ids=[id])]


def result(id: str) -> None:
    """Raises what the request raised."""
    _get(id)


def cluster_launches(name: str) -> list[dict[str, str]]:
    import sky

    found = sky.api_status(all_status=True, cluster_name=name)
    return [_request(each) for each in found if each.name == "sky.launch" and each.cluster_name == name]


def job_launches(name: str) -> list[dict[str, str]]:
    import sky

    return [_request(each) for each in sky.api_status() if each.name == "sky.jobs.launch" and _name(each) == name]


def cancel_request(id: str) -> None:
    import sky

    _get(sky.api_cancel(id))


def _request(payload: Any) -> dict[str, str]:
    return {"id": payload.request_id, "status": payload.status}


def _name(payload: Any) -> str | None:
    """Of a managed job's launch: the one thing that is read of a body."""
    body = json.loads(payload.request_body or "null")
    return body.get("name") if isinstance(body, dict) else None


# -- clusters ---------------------------------------------------------------------------------------------------------


def clusters(names: list[str] | None) -> dict[str, str]:
    import sky

    return {each["name"]: each["status"].value for each in _get(sky.status(cluster_names=names))}


def cluster_jobs(name: str) -> list[dict[str, Any]]:
    import sky

    return [_fields(each, "job_id", "submitted_at", "end_at") for each in _get(sky.queue(name, all_users=True))]


def cancel_cluster_jobs(name: str, ids: list[int]) -> None:
    import sky

    _get(sky.cancel(name, job_ids=ids))


def down(name: str) -> None:
    import sky

    _get(sky.down(name))


def cluster_log(name: str, job: int) -> Iterator[str]:
    import sky

    for chunk in sky.tail_logs(name, job, follow=False, preload_content=False):
        yield chunk or ""


# -- managed jobs -----------------------------------------------------------------------------------------------------


def managed_jobs(name: str | None) -> list[dict[str, Any]]:
    import sky

    answer = _get(sky.jobs.queue_v2(refresh=False, skip_finished=name is None, name_match=name, fields=None))
    wanted = ("job_id", "job_name", "submitted_at", "end_at", "recovery_count", "failure_reason")
    return [_fields(each, *wanted) for each in answer[0]]


def cancel_jobs(ids: list[int]) -> None:
    import sky

    _get(sky.jobs.cancel(job_ids=ids))


def job_log(job: int) -> Iterator[str]:
    import sky

    for chunk in sky.jobs.tail_logs(job_id=job, follow=False, preload_content=False):
        yield chunk or ""


def _fields(record: Any, *names: str) -> dict[str, Any]:
    return {**{name: record[name] for name in names}, "status": record["status"].value}


# -- money ------------------------------------------------------------------------------------------------------------


def costs() -> list[tuple[str, float]]:
    from sky.client import sdk

    return [(each["name"], float(each["total_cost"] or 0)) for each in _get(sdk.cost_report())]


CALLS: dict[str, Callable[..., Any]] = {
    call.__name__: call
    for call in (
        optimize,
        launch_cluster,
        launch_job,
        request,
        result,
        cluster_launches,
        job_launches,
        cancel_request,
        clusters,
        cluster_jobs,
        cancel_cluster_jobs,
        down,
        cluster_log,
        managed_jobs,
        cancel_jobs,
        job_log,
        costs,
    )
}

if __name__ == "__main__":
    main()
