"""The job pages without a browser: who is answered, uploads in pieces, which recipes, what can be downloaded."""

import os
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient
from redis import Redis
from werkzeug.test import TestResponse

from services.connection.connect import connect
from services.connection.embedded import EmbeddedServer
from services.errors import Gone, StorageFull
from services.jobs.jobs import Jobs
from services.places import SAMPLES_DIR
from services.settings import Settings
from services.wire.keys import Keys
from webapp.application import create_app
from webapp.jobs.uploads import KEPT_S, Uploads, WrongOffset

HERE = "http://127.0.0.1:8000"
RECIPE = "name: tiny\nsteps:\n  - roles\n  - quality\n"
OURS = {"Origin": HERE}


class Page:
    """What the page's script does, over Flask's test client."""

    def __init__(self, client: FlaskClient) -> None:
        self.client = client

    def get(self, path: str, **more: Any) -> TestResponse:
        return self.client.get(path, base_url=HERE, **more)

    def post(self, path: str, body: object) -> TestResponse:
        return self.client.post(path, base_url=HERE, json=body, headers=OURS)

    def put(self, path: str, data: bytes) -> TestResponse:
        return self.client.put(path, base_url=HERE, data=data, headers=OURS, content_type="application/octet-stream")

    def delete(self, path: str) -> TestResponse:
        return self.client.delete(path, base_url=HERE, headers=OURS)

    def uploaded(self, name: str = "talk.jsonl", data: bytes = b'{"a": 1}\n') -> str:
        made = self.post("/api/uploads", {"name": name, "size": len(data)})
        assert made.status_code == 201, made.text
        upload = str(made.json["id"])  # type: ignore[index]
        assert self.put(f"/api/uploads/{upload}?offset=0", data).status_code == 200
        return upload

    def order(self, *uploads: str, key: str = "k" * 32, recipe: str = RECIPE) -> TestResponse:
        body = {"key": key, "recipe": recipe, "recipe_name": "tiny.yaml", "uploads": list(uploads), "name": "A talk"}
        return self.post("/api/jobs", body)

    def submitted(self, *uploads: str, key: str = "k" * 32) -> str:
        made = self.order(*(uploads or (self.uploaded(),)), key=key)
        assert made.status_code == 201, made.text
        return str(made.json["job"]["id"])  # type: ignore[index]


@pytest.fixture
def settings(redis_server: EmbeddedServer, namespace: str, tmp_path: Path) -> Settings:
    return Settings(redis_url=redis_server.url, namespace=namespace, state_dir=tmp_path, max_upload_mib=1)


@pytest.fixture
def page(settings: Settings) -> Page:
    return Page(create_app(settings)[0].test_client())


@pytest.fixture
def jobs(redis_client: Redis, namespace: str) -> Jobs:
    return Jobs(redis_client, Keys(namespace))


def code_of(answer: TestResponse) -> str:
    assert answer.json is not None
    return str(answer.json["error"]["code"])


def finished(page: Page, jobs: Jobs, tmp_path: Path) -> tuple[str, Path]:
    """A job that has ended, and its folder with all files."""
    jid = page.submitted()
    folder = tmp_path / "jobs" / jid
    for name in ("data.jsonl", "validation.jsonl", "rejects.jsonl", "report.json", "report.html"):
        (folder / name).write_text(f"<p>{name}</p>")
    assert jobs.started(jid) and jobs.finished(jid)
    return jid, folder


# -- who is answered -------------------------------------------------------------------------------------------------

FORWARDED = [
    "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Forwarded-Anything", "Forwarded", "Via", "X-Real-IP",
    "X-Client-IP", "True-Client-IP", "CF-Connecting-IP", "Client-IP", "X-Envoy-External-Address", "X_Forwarded_For",
]  # fmt: skip


@pytest.mark.parametrize(
    "path",
    [
        "/jobs",
        "/jobs/abc",
        "/api/jobs",
        "/api/jobs/abc",
        "/api/recipes",
        "/api/uploads/a",
        "/api/trainings",
        "/api/trainings/previews/a",
        "/api/samples/velmora_html.json",
    ],
)
@pytest.mark.parametrize("peer", ["10.0.0.7", "192.168.1.2", "2001:db8::1", "::ffff:10.0.0.7", "", "unix:"])
def test_another_machine_is_not_answered(page: Page, path: str, peer: str) -> None:
    answer = page.get(path, environ_overrides={"REMOTE_ADDR": peer})
    assert answer.status_code == 403 and "ssh -L" in answer.text
    assert code_of(answer) == "forbidden" if path.startswith("/api") else "<h1>Not from here</h1>" in answer.text


@pytest.mark.parametrize("peer", ["127.0.0.1", "127.8.9.1", "::1", "::ffff:127.0.0.1"])
@pytest.mark.parametrize("host", ["http://127.0.0.1:8000", "http://localhost", "http://LOCALHOST:1", "http://[::1]:80"])
def test_this_machine_is_answered_under_its_own_names(page: Page, peer: str, host: str) -> None:
    assert page.client.get("/jobs", base_url=host, environ_overrides={"REMOTE_ADDR": peer}).status_code == 200
    assert page.client.get("/api/jobs", base_url=host, environ_overrides={"REMOTE_ADDR": peer}).status_code == 200


@pytest.mark.parametrize("header", FORWARDED)
def test_what_a_proxy_forwards_is_not_answered(page: Page, header: str) -> None:
    for value in ("127.0.0.1", ""):
        assert page.get("/api/jobs", headers={header: value}).status_code == 403


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:8000", "127.0.0.1.evil.example", "localhost.evil.example", "127.0.0.2", "localhost.",
     "user@localhost", "[::ffff:127.0.0.1]", "2130706433", "localhost:8000,evil.example", "127.0.0.1:99999999", ""],
)  # fmt: skip
def test_a_name_that_only_resolves_to_us_is_not_answered(page: Page, host: str) -> None:
    """DNS rebinding: the page of that name would be of our origin, for the browser."""
    assert page.get("/api/jobs", headers={"Host": host}).status_code in (400, 403)


BY_CADDY = {
    "X-Forwarded-For": "172.18.0.1",
    "X-Forwarded-Host": "127.0.0.1:8000",
    "X-Forwarded-Proto": "http",
    "Via": "1.1 Caddy",
}


@pytest.mark.parametrize(
    ("published_on", "status"), [("127.0.0.1", 200), ("::1", 200), ("0.0.0.0", 403), ("10.0.0.7", 403)]
)
def test_behind_the_deployments_own_proxy_its_published_address_decides(
    settings: Settings, published_on: str, status: int
) -> None:
    page = Page(create_app(settings.model_copy(update={"published_on": published_on}))[0].test_client())
    answer = page.get("/api/jobs", headers=BY_CADDY, environ_overrides={"REMOTE_ADDR": "172.18.0.5"})
    assert answer.status_code == status


@pytest.mark.parametrize(
    "header", [{"X-Original-Forwarded-For": "forwarded"}, {"X-Real-IP": "1.2.3.4"}, {"Host": "evil.example"}]
)
def test_behind_that_proxy_other_proxies_and_names_are_refused_as_before(
    settings: Settings, header: dict[str, str]
) -> None:
    page = Page(create_app(settings.model_copy(update={"published_on": "127.0.0.1"}))[0].test_client())
    assert page.get("/api/jobs", headers={**BY_CADDY, **header}).status_code == 403


def test_a_proxy_that_says_nothing_of_itself_speaks_http_1_0(page: Page) -> None:
    assert page.get("/api/jobs", environ_overrides={"SERVER_PROTOCOL": "HTTP/1.0"}).status_code == 403


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_a_page_of_another_origin_may_not_read_the_api_but_may_link_to_the_page(page: Page, site: str) -> None:
    assert page.get("/api/jobs", headers={"Sec-Fetch-Site": site}).status_code == 403
    assert page.get("/jobs", headers={"Sec-Fetch-Site": site}).status_code == 200


CHANGES = [
    ("POST", "/api/jobs"), ("POST", "/api/jobs/x/cancel"), ("POST", "/api/jobs/x/again"), ("DELETE", "/api/jobs/x"),
    ("POST", "/api/uploads"), ("PUT", "/api/uploads/x?offset=0"), ("DELETE", "/api/uploads/x"),
    ("POST", "/api/recipes/check"), ("POST", "/api/trainings"), ("POST", "/api/trainings/previews"),
    ("POST", "/api/jobs/x/serve"),
]  # fmt: skip


@pytest.mark.parametrize(("method", "path"), CHANGES)
def test_a_page_of_another_origin_may_not_change_anything(page: Page, method: str, path: str) -> None:
    for headers in (
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://localhost:8000"},  # as local, but not ours
        {"Origin": "http://127.0.0.1:9000"},
        {"Origin": "https://evil.example", "Sec-Fetch-Site": "same-origin"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "none"},
        {},
    ):
        answer = page.client.open(path, method=method, base_url=HERE, json={}, headers=headers)
        assert (answer.status_code, code_of(answer)) == (403, "forbidden"), headers


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""])
def test_what_a_form_can_send_is_refused_whatever_its_origin(page: Page, kind: str) -> None:
    answer = page.client.post("/api/uploads", base_url=HERE, data=b"{}", headers=OURS, content_type=kind)
    assert (answer.status_code, code_of(answer)) == (403, "forbidden")


def test_the_chat_page_shows_the_way_here_to_those_who_may_go_it(page: Page) -> None:
    assert 'href="/jobs"' in page.get("/").text
    assert 'href="/jobs"' not in page.get("/", environ_overrides={"REMOTE_ADDR": "10.0.0.7"}).text


def test_the_pages_run_no_script_but_their_own(page: Page) -> None:
    for path in ("/jobs", "/jobs/x"):
        answer = page.get(path)
        assert "unsafe" not in answer.headers["Content-Security-Policy"]
        assert "<script>" not in answer.text and " style=" not in answer.text and "<style" not in answer.text


# -- uploads ---------------------------------------------------------------------------------------------------------


def test_a_file_comes_in_pieces_and_goes_on_where_it_stood(page: Page, tmp_path: Path) -> None:
    upload = page.post("/api/uploads", {"name": "talk.jsonl.gz", "size": 10}).json
    assert upload is not None and upload["offset"] == 0 and upload["piece_bytes"] == 524_288
    address = f"/api/uploads/{upload['id']}"
    assert page.put(f"{address}?offset=0", b"01234").json["offset"] == 5  # type: ignore[index]
    assert page.get(address).json == {**upload, "offset": 5}
    assert page.put(f"{address}?offset=5", b"56789").json["offset"] == 10  # type: ignore[index]
    assert (tmp_path / "uploads" / upload["id"] / f"{upload['id']}.jsonl.gz").read_bytes() == b"0123456789"


def test_a_piece_that_came_already_changes_nothing_and_another_is_told_where_to_go_on(page: Page) -> None:
    upload = page.post("/api/uploads", {"name": "a.json", "size": 10}).json
    assert upload is not None
    address = f"/api/uploads/{upload['id']}"
    for _ in range(2):
        assert page.put(f"{address}?offset=0", b"01234").json["offset"] == 5  # type: ignore[index]
    for offset, piece in ((0, b"XXXXX"), (0, b"0123456"), (3, b"345"), (7, b"789"), (6, b"")):
        answer = page.put(f"{address}?offset={offset}", piece)
        assert (answer.status_code, code_of(answer)) == (409, "conflict")
        assert answer.json["error"]["offset"] == 5  # type: ignore[index]
    assert page.get(address).json["offset"] == 5  # type: ignore[index]


def test_more_than_was_announced_is_refused(page: Page) -> None:
    upload = page.post("/api/uploads", {"name": "a.json", "size": 3}).json
    assert upload is not None
    answer = page.put(f"/api/uploads/{upload['id']}?offset=0", b"1234")
    assert (answer.status_code, code_of(answer)) == (400, "invalid_request")
    assert page.get(f"/api/uploads/{upload['id']}").json["offset"] == 0  # type: ignore[index]


@pytest.mark.parametrize("offset", ["", "-1", "1.5", "1e3", "²", "9" * 20, "x"])
def test_an_offset_is_a_number(page: Page, offset: str) -> None:
    assert page.put(f"/api/uploads/{'0' * 32}?offset={offset}", b"1").status_code == 400


@pytest.mark.parametrize(
    ("name", "size"),
    [("a", 0), ("a", -1), ("a", 1_048_577), ("a", True), ("a", "5"), ("a", None), ("a", 1.5), (None, 5), (["a"], 5)],
)
def test_a_size_is_within_the_limit_and_a_name_is_text(page: Page, name: object, size: object) -> None:
    answer = page.post("/api/uploads", {"name": name, "size": size})
    assert (answer.status_code, code_of(answer)) == (400, "invalid_request")


@pytest.mark.parametrize("body", [[], "x", 5])
def test_an_upload_is_an_object(page: Page, body: object) -> None:
    assert page.post("/api/uploads", body).status_code == 400


@pytest.mark.parametrize(
    ("name", "label", "suffix"),
    [
        ("../../etc/passwd", "passwd", ""),
        ("..\\..\\boot.JSON", "boot.JSON", ".json"),
        ("/abs/olute.parquet", "olute.parquet", ".parquet"),
        ("..", "..", ""),
        ("", "file", ""),
        ("a\x00b\u202egz.txt", "abgz.txt", ""),
        ("x.jsonl.gz/", "file", ""),
        ("x.tar.gz", "x.tar.gz", ".gz"),
        ("half\ud800.zst", "half?.zst", ".zst"),
        ("n" * 400 + ".json", "n" * 250 + ".json", ".json"),
    ],
)
def test_the_users_name_is_a_label_and_the_file_has_ours(
    page: Page, tmp_path: Path, name: str, label: str, suffix: str
) -> None:
    made = page.post("/api/uploads", {"name": name, "size": 1}).json
    assert made is not None and made["name"] == label
    files = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    upload = f"uploads/{made['id']}"
    assert files == {"job_key", "secret_key", f"{upload}/about.json", f"{upload}/{made['id']}{suffix}"}


@pytest.mark.parametrize("upload", ["..", "%2e%2e", "A" * 32, "0" * 31, "0" * 32, "0" * 32 + ".new", "about.json"])
def test_an_unknown_upload_is_gone(page: Page, upload: str) -> None:
    for answer in (page.get(f"/api/uploads/{upload}"), page.put(f"/api/uploads/{upload}?offset=0", b"x")):
        assert answer.status_code in (404, 410)
    assert page.order(upload).status_code == 410


def test_two_tabs_that_send_one_file_write_it_once(tmp_path: Path) -> None:
    uploads = Uploads(tmp_path, max_bytes=1 << 20, reserve_bytes=0)
    data = os.urandom(200_000)
    upload = uploads.create("a.json", len(data))

    def send() -> None:
        offset = 0
        while offset < len(data):
            try:
                offset = uploads.write(upload.id, offset, data[offset : offset + 1000]).offset
            except WrongOffset as error:
                offset = error.offset

    tabs = [threading.Thread(target=send) for _ in range(3)]
    for tab in tabs:
        tab.start()
    for tab in tabs:
        tab.join()
    assert (tmp_path / upload.id / upload.file).read_bytes() == data


def test_the_disk_keeps_a_reserve_and_counts_what_was_announced(tmp_path: Path) -> None:
    free = os.statvfs(tmp_path).f_bavail * os.statvfs(tmp_path).f_frsize
    uploads = Uploads(tmp_path, max_bytes=free, reserve_bytes=free // 2)
    first = uploads.create("a.json", free // 3)
    with pytest.raises(StorageFull, match="no room"):
        uploads.create("b.json", free // 3)
    uploads.drop(first.id)
    second = uploads.create("b.json", free // 3)
    with pytest.raises(StorageFull):
        Uploads(tmp_path, max_bytes=free, reserve_bytes=2 * free).write(second.id, 0, b"the disk was filled meanwhile")
    assert uploads.get(second.id).offset == 0


def test_what_nobody_goes_on_with_is_swept_after_a_day(tmp_path: Path) -> None:
    uploads = Uploads(tmp_path, max_bytes=100, reserve_bytes=0)
    old, fresh = uploads.create("old.json", 5), uploads.create("new.json", 5)
    long_ago = time.time() - KEPT_S - 60
    for path in (*(tmp_path / old.id).iterdir(), tmp_path / old.id):
        os.utime(path, (long_ago, long_ago))
    uploads.create("another.json", 5)
    with pytest.raises(Gone):
        uploads.get(old.id)
    assert uploads.get(fresh.id) == fresh


# -- submitting ------------------------------------------------------------------------------------------------------


def test_a_submitted_job_has_its_files_in_its_folder(page: Page, jobs: Jobs, tmp_path: Path) -> None:
    first, second = page.uploaded("a.jsonl", b"1\n"), page.uploaded("b.json.gz", b"2\n")
    jid = page.submitted(first, second)
    job = jobs.get(jid)
    folder = tmp_path / "jobs" / jid
    assert (job.kind, job.name, job.state) == ("clean", "A talk", "submitted")
    assert job.spec == {
        "recipe": RECIPE,
        "recipe_name": "tiny.yaml",
        "inputs": [f"{folder}/inputs/{first}/{first}.jsonl", f"{folder}/inputs/{second}/{second}.json.gz"],
        "labels": ["a.jsonl", "b.json.gz"],
        "out": str(folder),
    }
    assert [Path(path).read_bytes() for path in job.spec["inputs"]] == [b"1\n", b"2\n"]
    assert list((tmp_path / "uploads").iterdir()) == []


def test_a_repeated_order_makes_one_job_and_a_key_makes_no_second(page: Page, jobs: Jobs) -> None:
    upload = page.uploaded()
    assert page.submitted(upload) == page.submitted(upload)
    assert len(jobs.list()) == 1
    assert page.order(page.uploaded()).status_code == 409
    assert page.submitted(page.uploaded(), key="j" * 32) != jobs.list()[-1].id


def test_an_upload_that_is_not_complete_makes_no_job(page: Page, jobs: Jobs) -> None:
    upload = page.post("/api/uploads", {"name": "a.json", "size": 3}).json
    assert upload is not None
    answer = page.order(upload["id"])
    assert answer.status_code == 400 and "not complete" in answer.text and not jobs.list()


def test_the_files_of_a_job_together_stay_within_the_limit(page: Page, jobs: Jobs) -> None:
    uploads = [page.uploaded(data=b"x" * 600_000) for _ in range(2)]
    answer = page.order(*uploads)
    assert answer.status_code == 400 and "together" in answer.text and not jobs.list()


@pytest.mark.parametrize(
    "change",
    [{"uploads": []}, {"uploads": "x"}, {"uploads": [5]}, {"uploads": ["0" * 32] * 2}, {"key": "short"}, {"key": None},
     {"key": "../" * 8}, {"recipe": None}, {"recipe": 5}, {"name": 5}, {"name": "n" * 121}, {"recipe_name": []},
     {"uploads": [str(number) for number in range(65)]}],
)  # fmt: skip
def test_a_wrong_order_is_refused_with_its_field(page: Page, jobs: Jobs, change: dict[str, object]) -> None:
    body = {"key": "k" * 32, "recipe": RECIPE, "uploads": ["0" * 32], **change}
    answer = page.post("/api/jobs", body)
    assert (answer.status_code, code_of(answer)) == (400, "invalid_request") and not jobs.list()


@pytest.mark.parametrize(
    ("recipe", "line", "words"),
    [
        ("steps:\n  - roles\n  - rolls\n", 3, "did you mean roles"),
        ("steps: [\n", 2, "not valid YAML"),
        ("name: a\nname: b\nsteps: [roles]\n", 2, "stands twice"),
        ("", 1, "a recipe is a mapping"),
        ("steps:\n  - roles\n  - decontaminate:\n      against: [/etc/passwd]\n", 4, "'/etc/passwd'"),
        ("steps:\n  - decontaminate: {against: ['http://169.254.169.254/']}\n", 2, "169.254.169.254"),
        ("steps: [roles]\ntokenizer:\n  model: /etc\n", 3, "'/etc'"),
        ("steps: [roles]\ntokenizer: {model: some/hub-id}\n", 2, "'some/hub-id'"),
        ("steps: [roles]\ntokenizer: {model: smollm2-135m/}\n", 2, "packaged"),
        ("steps: [roles]\ntokenizer: {template: '../x'}\nfiles: /etc\n", 3, "unknown key 'files'"),
    ],
)
def test_a_refused_recipe_tells_its_line_and_the_value(
    page: Page, jobs: Jobs, recipe: str, line: int, words: str
) -> None:
    upload = page.uploaded()
    for answer in (page.post("/api/recipes/check", {"recipe": recipe}), page.order(upload, recipe=recipe)):
        assert answer.status_code == 400 and answer.json is not None
        error = answer.json["error"]
        assert (error["code"], error["line"]) == ("invalid_request", line) and words in error["message"]
    assert not jobs.list() and page.get(f"/api/uploads/{upload}").status_code == 200


def test_the_samples_come_with_the_server_and_nothing_else_does(page: Page) -> None:
    for name in ("sharegpt_html.json", "velmora_html.json"):
        answer = page.get(f"/api/samples/{name}")
        assert (answer.status_code, answer.data) == (200, (SAMPLES_DIR / name).read_bytes())
    for name in ("__init__.py", "..%2f..%2frequirements.txt", "sharegpt_html.json%00"):
        assert page.get(f"/api/samples/{name}").status_code in (404, 410)


def test_the_recipes_that_come_with_the_server_pass(page: Page) -> None:
    answer = page.get("/api/recipes").json
    assert answer is not None and answer["max_upload_bytes"] == 1_048_576
    assert [recipe["name"] for recipe in answer["recipes"]] == [
        "alpaca.yaml",
        "ours.yaml",
        "preferences.yaml",
        "vicuna.yaml",
    ]
    for recipe in answer["recipes"]:
        assert page.post("/api/recipes/check", {"recipe": recipe["text"]}).status_code == 200


# -- watching --------------------------------------------------------------------------------------------------------


def test_a_job_tells_every_step_of_its_recipe_its_progress_and_its_log(page: Page, jobs: Jobs) -> None:
    jid = page.submitted()
    jobs.started(jid)
    jobs.planned(jid, 4, 1)
    counts = {"records_in": 10, "records_out": 8, "rejected": {"too_short": 2}, "cut": {}, "changed": {}}
    jobs.note(jid, "shard-0-00000", {"state": "running", "records": 5, "of": 10, "steps": {"roles": counts}})
    for line in ("first", "second <b>"):
        jobs.log(jid, line)
    answer = page.get(f"/api/jobs/{jid}").json
    assert answer is not None
    assert answer["job"]["state"] == "running" and answer["removes_files"]
    assert answer["spec"]["labels"] == ["talk.jsonl"] and answer["files"] == {}
    progress = answer["progress"]
    assert (progress["num_units"], progress["fraction"]) == (4, 0.125)
    assert [step["label"] for step in progress["steps"]] == ["read", "roles", "quality"]
    assert progress["steps"][1]["rejected"] == {"too_short": 2} and progress["steps"][2]["records_in"] == 0
    assert [entry["line"] for entry in answer["log"]] == ["first", "second <b>"]
    later = page.get(f"/api/jobs/{jid}?after={answer['log'][0]['id']}").json
    assert later is not None and [entry["line"] for entry in later["log"]] == ["second <b>"]
    listed = page.get("/api/jobs").json
    assert listed is not None and [(job["id"], job["fraction"]) for job in listed["jobs"]] == [(jid, 0.125)]


@pytest.mark.parametrize("after", ["x", "-", "1-", "1-2-3", "9" * 30, "+", "$"])
def test_a_cursor_is_the_id_of_a_line(page: Page, after: str) -> None:
    assert page.get(f"/api/jobs/{page.submitted()}?after={after}").status_code == 400


@pytest.mark.parametrize("jid", ["nobody", "..", "%00", "a%2Fb", "é", "x" * 300])
def test_an_unknown_job_is_gone(page: Page, jid: str) -> None:
    for answer in (
        page.get(f"/api/jobs/{jid}"),
        page.get(f"/api/jobs/{jid}/files/data"),
        page.post(f"/api/jobs/{jid}/cancel", {}),
        page.post(f"/api/jobs/{jid}/again", {}),
        page.delete(f"/api/jobs/{jid}"),
    ):
        assert answer.status_code in (400, 404, 410), answer.text
        assert code_of(answer)


def test_while_redis_is_away_it_is_said_and_nothing_is_moved(settings: Settings, tmp_path: Path) -> None:
    lonely = settings.model_copy(update={"redis_url": "redis://127.0.0.1:1/0"})
    page = Page(create_app(lonely)[0].test_client())
    upload = page.uploaded()
    for answer in (page.get("/api/jobs"), page.get("/api/jobs/x"), page.order(upload), page.delete("/api/jobs/x")):
        assert (answer.status_code, code_of(answer)) == (503, "unavailable")
    assert page.get("/jobs").status_code == 200 and page.get(f"/api/uploads/{upload}").json["offset"] > 0  # type: ignore[index]
    assert not (tmp_path / "jobs").exists()


def test_a_job_is_cancelled_goes_on_and_is_removed_with_its_files(page: Page, jobs: Jobs, tmp_path: Path) -> None:
    jid = page.submitted()
    assert page.post(f"/api/jobs/{jid}/again", {}).status_code == 409
    assert page.delete(f"/api/jobs/{jid}").status_code == 409 and (tmp_path / "jobs" / jid).exists()
    jobs.started(jid)
    assert page.post(f"/api/jobs/{jid}/cancel", {}).json["job"]["cancelling"]  # type: ignore[index]
    jobs.cancelled(jid)
    assert page.post(f"/api/jobs/{jid}/again", {}).json["job"]["state"] == "submitted"  # type: ignore[index]
    jobs.started(jid)
    jobs.failed(jid, "Traceback …\nOSError: disk full")
    assert page.get(f"/api/jobs/{jid}").json["job"]["error"].endswith("disk full")  # type: ignore[index]
    assert page.delete(f"/api/jobs/{jid}").status_code == 200
    assert not (tmp_path / "jobs" / jid).exists() and not jobs.list()


def test_removing_a_job_of_the_command_leaves_its_files(page: Page, jobs: Jobs, tmp_path: Path) -> None:
    out = tmp_path / "theirs"
    out.mkdir()
    jobs.submit("july", "clean", "july", {"recipe": RECIPE, "recipe_name": "r", "inputs": ["/in"], "out": str(out)})
    jobs.submit("../up", "clean", "up", {"recipe": RECIPE, "inputs": [], "out": str(tmp_path / "jobs" / "../up")})
    for jid in ("july", "../up"):
        jobs.started(jid)
        jobs.finished(jid)
    shown = page.get("/api/jobs/july").json
    assert shown is not None and not shown["removes_files"] and shown["spec"]["labels"] is None
    assert page.delete("/api/jobs/july").status_code == 200 and out.exists()


# -- downloads -------------------------------------------------------------------------------------------------------


def test_a_finished_job_gives_its_files(page: Page, jobs: Jobs, tmp_path: Path) -> None:
    jid, _ = finished(page, jobs, tmp_path)
    shown = page.get(f"/api/jobs/{jid}").json
    assert shown is not None and sorted(shown["files"]) == ["data", "rejects", "report", "report.json", "validation"]
    assert shown["files"]["data"] == {"name": "data.jsonl", "size": 17}
    answer = page.get(f"/api/jobs/{jid}/files/data")
    assert answer.text == "<p>data.jsonl</p>" and answer.headers["Content-Type"] == "application/x-ndjson"
    assert answer.headers["Content-Disposition"] == f"attachment; filename={jid}-data.jsonl"
    part = page.get(f"/api/jobs/{jid}/files/data", headers={"Range": "bytes=3-6"})
    assert (part.status_code, part.text) == (206, "data")
    same = page.get(f"/api/jobs/{jid}/files/data", headers={"If-None-Match": answer.headers["ETag"]})
    assert same.status_code == 304


def test_the_report_can_do_nothing_but_show_itself(page: Page, jobs: Jobs, tmp_path: Path) -> None:
    jid, _ = finished(page, jobs, tmp_path)
    answer = page.get(f"/api/jobs/{jid}/files/report")
    policy = answer.headers["Content-Security-Policy"]
    assert {"default-src 'none'", "style-src 'unsafe-inline'", "img-src data:", "sandbox"} <= set(policy.split("; "))
    assert answer.content_type == "text/html; charset=utf-8" and answer.headers["X-Content-Type-Options"] == "nosniff"


@pytest.mark.parametrize("state", ["submitted", "running", "failed"])
def test_only_a_finished_job_gives_files(page: Page, jobs: Jobs, tmp_path: Path, state: str) -> None:
    jid = page.submitted()
    (tmp_path / "jobs" / jid / "data.jsonl").write_text("half")
    if state != "submitted":
        jobs.started(jid)
    if state == "failed":
        jobs.failed(jid, "why")
    assert page.get(f"/api/jobs/{jid}/files/data").status_code == 410


@pytest.mark.parametrize(
    "kind", ["inputs", ".work", "data.jsonl", "..", "..%2Fsecret_key", "%2Fetc%2Fpasswd", "report.html", "DATA", "%00"]
)
def test_only_known_names_are_files(page: Page, jobs: Jobs, tmp_path: Path, kind: str) -> None:
    jid, _ = finished(page, jobs, tmp_path)
    assert page.get(f"/api/jobs/{jid}/files/{kind}").status_code in (404, 410)


def test_a_link_a_pipe_and_a_folder_are_not_files(page: Page, jobs: Jobs, tmp_path: Path) -> None:
    jid, folder = finished(page, jobs, tmp_path)
    secret = tmp_path / "secret_key"
    (folder / "data.jsonl").unlink()
    (folder / "data.jsonl").symlink_to(secret)
    (folder / "rejects.jsonl").unlink()
    os.mkfifo(folder / "rejects.jsonl")
    (folder / "report.json").unlink()
    (folder / "report.json").mkdir()
    for kind in ("data", "rejects", "report.json"):
        assert page.get(f"/api/jobs/{jid}/files/{kind}").status_code == 410, kind
    moved = folder.rename(tmp_path / "moved")
    folder.symlink_to(moved)
    assert page.get(f"/api/jobs/{jid}/files/report").status_code == 410


def test_a_missing_folder_of_recipes_is_an_empty_list(settings: Settings, tmp_path: Path) -> None:
    page = Page(create_app(settings.model_copy(update={"recipes_dir": tmp_path / "none"}))[0].test_client())
    assert page.get("/api/recipes").json["recipes"] == []  # type: ignore[index]


def test_looking_at_a_job_costs_redis_a_few_commands(page: Page, jobs: Jobs, redis_server: EmbeddedServer) -> None:
    """A page that is looked at asks every second."""
    jid = page.submitted()
    with connect(redis_server.url, role="test") as client:
        before = client.info("commandstats")
        page.get(f"/api/jobs/{jid}")
        after = client.info("commandstats")
    calls = sum(after[name]["calls"] - before.get(name, {"calls": 0})["calls"] for name in after if "info" not in name)
    assert calls <= 12


@pytest.mark.parametrize(
    "path", ["/api/jobs", "/api/recipes/check", "/api/uploads", "/api/trainings", "/api/trainings/previews"]
)
@pytest.mark.parametrize("opening", ["[", '{"a":'])
def test_json_that_is_nested_too_deeply_is_the_clients_mistake(page: Page, path: str, opening: str) -> None:
    """The parser's RecursionError was answered as a failure of the server, with a traceback in its log."""
    body = opening * 100_000
    answer = page.client.post(path, base_url=HERE, data=body, headers=OURS, content_type="application/json")
    assert (answer.status_code, code_of(answer)) == (400, "invalid_request")
    assert "nested too deeply" in answer.text
