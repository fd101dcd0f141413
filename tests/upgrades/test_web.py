"""The web app over the state folder of the older build: who somebody is, and what is being uploaded."""

import pytest
import requests

from tests.end_to_end.system import System
from tests.upgrades.old_build import OldBuild


@pytest.fixture(scope="module")
def url(system: System) -> str:
    return system.web()


def test_a_browser_stays_who_it_was(url: str, old: OldBuild) -> None:
    for user in old.about["users"].values():
        answer = requests.get(f"{url}/api/session", headers={"Cookie": user["cookie"]}, timeout=10)
        assert answer.json() == {"user": user["user"]}


def test_a_forged_cookie_makes_a_stranger(url: str, old: OldBuild) -> None:
    """Else the test above would prove nothing."""
    cookie = old.cookie()[:-1] + ("A" if old.cookie()[-1] != "A" else "Q")
    answer = requests.get(f"{url}/api/session", headers={"Cookie": cookie}, timeout=10)
    assert answer.json()["user"] not in str(old.about["users"])


def test_a_half_done_upload_goes_on(url: str, old: OldBuild) -> None:
    upload, rest = old.about["upload"]["id"], old.about["upload"]["rest"].encode()
    found = requests.get(f"{url}/api/uploads/{upload}", timeout=10).json()
    assert (found["name"], found["offset"]) == ("half.json", 100)
    headers = {"Origin": url, "Content-Type": "application/octet-stream"}
    put = requests.put(f"{url}/api/uploads/{upload}?offset=100", data=rest, headers=headers, timeout=10)
    assert put.json()["offset"] == found["size"] == 100 + len(rest)


def test_an_order_that_comes_again_makes_no_second_job(url: str, old: OldBuild) -> None:
    """A page that had no reply sends its order again: the id of a job comes from the key that signs cookies, too."""
    recipe = requests.get(f"{url}/api/jobs/{old.job('page')}", timeout=10).json()["spec"]["recipe"]
    (upload,) = [path.name for path in (old.state / "jobs" / old.job("page") / "inputs").iterdir()]
    order = {"key": "order-of-the-old-build", "recipe": recipe, "name": "Sums", "uploads": [upload]}
    headers = {"Origin": url, "Content-Type": "application/json"}
    answer = requests.post(f"{url}/api/jobs", json={**order, "recipe_name": ""}, headers=headers, timeout=10)
    assert answer.status_code == 201, answer.text
    assert (answer.json()["job"]["id"], answer.json()["job"]["state"]) == (old.job("page"), "finished")
