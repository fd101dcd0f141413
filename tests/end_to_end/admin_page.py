"""What an administrator sees on the admin page, made by hand, and how one signs in. The tests of the page call it."""

from playwright.sync_api import Page

from services.chat.requests import Requests
from services.wire.messages import ChatRequest, Message, SamplingOptions
from tests.end_to_end.system import System

PASSWORD = "correct horse battery"


def ask_for(system: System, rid: str, user: str = "ann", model: str = "echo") -> Requests:
    requests = Requests(system.redis, system.keys)
    question = (Message("user", "a question that is repeated slowly " * 20),)
    requests.submit(ChatRequest(rid, user, model, question, SamplingOptions(max_new_tokens=500)))
    return requests


def give_up(system: System, rid: str, reason: str = "poison") -> None:
    """A dead letter of a model that no worker serves."""
    system.redis.sadd(system.keys.models, "lost")
    requests = ask_for(system, rid, model="lost")
    entry = requests.queue("lost").take("w", suspects=True)
    assert entry is not None
    requests.journal.give_up(rid, "ann", reason, "")
    requests.queue("lost").ack(entry, reason)


def sign_in(page: Page, address: str, name: str = "root") -> None:
    """Open a page that needs an account, and sign in on the way."""
    page.goto(address)
    page.get_by_label("Name").fill(name)
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_url(address)
