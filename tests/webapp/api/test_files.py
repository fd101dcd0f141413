"""`/v1/files` of a real web process: streamed to the disk, bounded, and each user's own."""

import socket
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest
import requests

from services.accounts.api_keys import ApiKeys
from services.errors import StorageFull, TooLarge
from services.jobs.stored_files import StoredFiles, UserRoom
from tests.end_to_end.system import System, running_system, wait_until
from tests.webapp.api.client import error_of

PATH = "/v1/files"
LINE = b'{"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": {}}\n'
MAX_MIB = 64


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    with running_system(tmp_path_factory.mktemp("files"), max_upload_mib=MAX_MIB) as system:
        yield system


@pytest.fixture(scope="module")
def url(system: System) -> str:
    return system.web()


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def send(
    url: str, content: bytes = LINE, key: str = "a", purpose: str = "batch", name: str = "in.jsonl"
) -> requests.Response:
    form = {"purpose": (None, purpose), "file": (name, content)}
    return requests.post(url + PATH, files=form, headers=bearer(key), timeout=60)  # type: ignore[arg-type]


def get(url: str, rest: str = "", key: str = "a", **query: object) -> requests.Response:
    return requests.get(url + PATH + rest, params=query, headers=bearer(key), timeout=30)  # type: ignore[arg-type]


def files_of(system: System) -> list[Path]:
    return [path for path in (system.folder / "files").rglob("*") if path.is_file() and path.name != ".lock"]


def test_a_name_of_any_letters_comes_back_with_the_file(url: str) -> None:
    """No header can hold it as it is: the download ended as an internal error."""
    made = send(url, name="данные.jsonl").json()
    assert made["filename"] == "данные.jsonl"
    found = get(url, f"/{made['id']}/content")
    assert (found.status_code, found.content) == (200, LINE)
    assert "filename*=UTF-8''%D0%B4%D0%B0" in found.headers["Content-Disposition"]


def test_a_file_is_kept_as_it_came(url: str) -> None:
    made = send(url, name="meine Fragen.jsonl").json()
    assert made.pop("created_at") > 1_700_000_000 and made["id"].startswith("file-")
    assert made == {
        "id": made["id"], "object": "file", "bytes": len(LINE), "expires_at": None, "filename": "meine Fragen.jsonl",
        "purpose": "batch", "status": "processed", "status_details": None,
    }  # fmt: skip
    assert get(url, f"/{made['id']}").json()["filename"] == "meine Fragen.jsonl"
    content = get(url, f"/{made['id']}/content")
    assert content.content == LINE and content.headers["Content-Type"] == "application/octet-stream"


def test_another_users_file_does_not_exist(url: str) -> None:
    file_id = send(url, key="mine").json()["id"]
    for rest in (f"/{file_id}", f"/{file_id}/content"):
        refused = get(url, rest, key="theirs")
        assert refused.status_code == 404 and error_of(refused)["code"] == "not_found"
    assert requests.delete(f"{url}{PATH}/{file_id}", headers=bearer("theirs"), timeout=30).status_code == 404
    assert get(url, key="theirs").json()["data"] == []
    assert get(url, f"/{file_id}", key="mine").status_code == 200


def test_a_list_has_pages_and_an_order(url: str) -> None:
    ids = [send(url, key="lists", purpose=purpose).json()["id"] for purpose in ("batch", "fine-tune", "batch")]
    newest = get(url, key="lists", limit=2).json()
    assert [each["id"] for each in newest["data"]] == ids[:0:-1] and newest["has_more"] is True
    rest = get(url, key="lists", limit=2, after=newest["last_id"]).json()
    assert [each["id"] for each in rest["data"]] == ids[:1] and rest["has_more"] is False
    oldest = get(url, key="lists", order="asc").json()["data"]
    assert [each["id"] for each in oldest] == ids
    assert [each["id"] for each in get(url, key="lists", purpose="fine-tune").json()["data"]] == [ids[1]]


def test_what_is_deleted_is_gone_from_the_disk(system: System, url: str) -> None:
    file_id = send(url, key="deletes").json()["id"]
    gone = requests.delete(f"{url}{PATH}/{file_id}", headers=bearer("deletes"), timeout=30)
    assert gone.json() == {"id": file_id, "object": "file", "deleted": True}
    assert get(url, f"/{file_id}", key="deletes").status_code == 404
    assert not any(file_id in str(path) for path in files_of(system))


def test_files_survive_the_web_process_and_redis(system: System, url: str) -> None:
    file_id = send(url, key="kept").json()["id"]
    system.redis.flushall()
    assert get(system.web(), f"/{file_id}/content", key="kept").content == LINE


@pytest.mark.parametrize(
    ("form", "field"),
    [
        ({"purpose": (None, "assistants"), "file": ("a", b"x")}, "purpose"),
        ({"file": ("a", b"x")}, "purpose"),
        ({"purpose": (None, "batch")}, "file"),
        ({"purpose": (None, "batch"), "file": ("a", b"")}, "file"),
        ({"purpose": (None, "batch"), "file": ("a", b"x"), "more": ("b", b"x")}, "file"),
        ({"expires_after[seconds]": (None, "3600"), "file": ("a", b"x")}, "expires_after[seconds]"),
    ],
)  # fmt: skip
def test_a_wrong_form_is_refused_by_its_field(system: System, url: str, form: dict[str, object], field: str) -> None:
    before = set(files_of(system))
    refused = requests.post(url + PATH, files=form, timeout=30)  # type: ignore[arg-type]
    assert refused.status_code == 400 and error_of(refused)["param"] == field
    assert set(files_of(system)) == before


def test_what_is_no_form_is_refused(url: str) -> None:
    assert requests.post(url + PATH, json={"purpose": "batch"}, timeout=30).status_code == 400
    form = {"Content-Type": "multipart/form-data; boundary=b"}
    torn = requests.post(url + PATH, data=b"--b\r\nContent", headers=form, timeout=30)
    assert torn.status_code == 400 and error_of(torn)["code"] == "invalid_request"


def test_a_large_file_goes_to_the_disk_and_not_into_memory(system: System, url: str) -> None:
    web = next(p for p in system.processes if "webapp" in psutil.Process(p.pid).cmdline())
    send(url, key="large")
    before = psutil.Process(web.pid).memory_info().rss
    content = LINE * (48 * 2**20 // len(LINE))
    sent = send(url, content, key="large")
    assert sent.status_code == 200, sent.text
    made = sent.json()
    assert made["bytes"] == len(content)
    assert psutil.Process(web.pid).memory_info().rss - before < 16 * 2**20
    assert get(url, f"/{made['id']}/content", key="large").content == content


def test_a_file_over_the_bound_is_refused_and_leaves_nothing(system: System, url: str) -> None:
    head = f"POST {PATH} HTTP/1.1\r\nHost: {urlsplit(url).netloc}\r\nContent-Type: multipart/form-data; boundary=b\r\n"
    before = set(files_of(system))
    with socket.create_connection((urlsplit(url).hostname or "", urlsplit(url).port or 0), timeout=30) as connection:
        connection.sendall(f"{head}Content-Length: {MAX_MIB * 2**21}\r\n\r\n".encode())
        status = connection.recv(65_536)
    assert status.startswith(b"HTTP/1.1 413") and set(files_of(system)) == before


def test_a_client_that_leaves_in_the_middle_leaves_nothing(system: System, url: str) -> None:
    before = set(files_of(system))
    head = f"POST {PATH} HTTP/1.1\r\nHost: {urlsplit(url).netloc}\r\nContent-Type: multipart/form-data; boundary=b\r\n"
    part = '--b\r\nContent-Disposition: form-data; name="file"; filename="x"\r\n\r\n'
    with socket.create_connection((urlsplit(url).hostname or "", urlsplit(url).port or 0), timeout=30) as connection:
        connection.sendall(f"{head}Content-Length: 1000000\r\n\r\n{part}".encode() + LINE * 3000)
        wait_until(lambda: len(files_of(system)) > len(before), "the draft")
    wait_until(lambda: set(files_of(system)) == before, "the end of the draft")


def test_who_needs_a_key_sends_no_byte_to_the_disk(system: System) -> None:
    url = system.web(api_keys_required=True)
    before = set(files_of(system))
    assert send(url, key="guess").status_code == 401 and set(files_of(system)) == before
    assert send(url, key=ApiKeys(system.redis, system.keys).create("files", "team")).status_code == 200


def test_a_user_may_keep_so_many_files_and_bytes_and_delete_makes_room(system: System) -> None:
    url, size = system.web(max_user_files=2, max_user_files_mib=1), 700_000
    first = send(url, b"x" * size, key="keeps").json()["id"]
    refused = send(url, b"x" * size, key="keeps")
    assert refused.status_code == 413 and "CHATSERVER_MAX_USER_FILES_MIB" in error_of(refused)["message"]
    send(url, key="keeps")
    refused = send(url, key="keeps")
    assert refused.status_code == 400 and "`DELETE /v1/files/{id}`" in error_of(refused)["message"]
    assert send(url, key="others").status_code == 200
    requests.delete(f"{url}{PATH}/{first}", headers=bearer("keeps"), timeout=30)
    assert send(url, b"x" * size, key="keeps").status_code == 200


def test_of_uploads_at_once_the_slower_one_has_no_room(tmp_path: Path) -> None:
    files = StoredFiles(tmp_path, max_bytes=100, room=UserRoom(num_files=9, num_bytes=100))
    with files.draft("ann") as slower, files.draft("ann") as faster:
        for each in (slower, faster):
            each.write(b"x" * 60)
        files.publish(faster, "ann", "batch", "a")
        with pytest.raises(TooLarge, match="those of a user"):
            files.publish(slower, "ann", "batch", "b")
    assert len(list(files.list("ann"))) == 1


def test_a_full_disk_is_told(tmp_path: Path) -> None:
    files = StoredFiles(tmp_path / "files", max_bytes=100, reserve_bytes=2**62)
    with pytest.raises(StorageFull, match="delete old files"), files.draft("ann") as made:
        made.write(b"x")
    assert not list((tmp_path / "files").rglob("content"))
