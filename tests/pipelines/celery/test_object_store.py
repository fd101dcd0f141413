"""Two workers that share no disk clean into a bucket; one of them is killed in the middle of a unit."""

from collections.abc import Iterator

import pytest

from pipelines.cleaning.cleaning import Cleaning
from services.jobs.recipe import parse_recipe
from tests.pipelines.celery.cleaning_processes import FILES, Pipelines, running_pipelines
from tests.s3_server import BUCKET, S3Server, s3_server

pytestmark = [pytest.mark.slow, pytest.mark.timeout(420)]  # the lease of the dead ends after a quarter of a minute


class BucketPipelines(Pipelines):
    """Jobs write to the bucket; `expected` was made on the disk."""

    def cleaning(self, name: str) -> Cleaning:
        out = self.folder / name if name == "expected" else f"s3://{BUCKET}/{name}"
        return Cleaning(out, parse_recipe(self.recipe, "r.yaml"), [str(self.source)])

    def output(self, name: str) -> dict[str, bytes]:
        folder = self.cleaning(name).folder
        return {file: folder.result(file) for file in FILES}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with s3_server(tmp_path_factory.mktemp("s3") / "log") as started:
        yield started


@pytest.fixture(scope="module")
def pipelines(server: S3Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pipelines]:
    """Three shards of some seconds each."""
    folder = tmp_path_factory.mktemp("pipelines")
    with running_pipelines(
        folder, kind=BucketPipelines, num_records=3000, num_words=60, shard_mib=0.5, clean_processes=1
    ) as system:
        yield system


def test_a_run_in_a_bucket_whose_worker_was_killed_is_finished_by_another(
    pipelines: Pipelines, server: S3Server
) -> None:
    """No kernel frees a lock here: the killed worker renews its lease no more, and the next one takes it."""
    pipelines.beat()
    doomed = pipelines.worker()
    pipelines.submit("shared", out=f"s3://{BUCKET}/shared")
    held = pipelines.stop_mid_shard(doomed, "shared")
    pipelines.kill(doomed)
    assert pipelines.is_held("shared", held), "the lease outlives its holder"
    pipelines.worker()
    job = pipelines.ended("shared", 300)
    assert job.state == "finished", job.error
    assert any(line.startswith(f"{held}: its process") for line in pipelines.lines("shared"))
    assert pipelines.output("shared") == pipelines.expected
    assert server.num_open_uploads() == 0
