"""How often a user, and an internet address, may submit in a minute."""

import pytest

from services.errors import UserLimit
from webapp.access.submit_rate import SubmitRate


def test_a_user_who_submits_and_cancels_without_end_is_told_when_to_come_back() -> None:
    now = 100.0
    rate = SubmitRate(3, 100, clock=lambda: now)
    for _ in range(3):
        rate.admit("ann", "")
    rate.admit("bob", "")
    now = 130.0
    with pytest.raises(UserLimit, match="you have submitted 3 requests") as refused:
        rate.admit("ann", "")
    assert refused.value.retry_after_s == 30
    now = 160.0
    rate.admit("ann", "")


def test_an_address_has_one_limit_for_all_its_users_and_a_private_one_has_none() -> None:
    rate = SubmitRate(100, 3, clock=lambda: 100.0)
    for user in ("ann", "bob", "eve"):
        rate.admit(user, "1.1.1.1")
    with pytest.raises(UserLimit, match="your address"):
        rate.admit("joe", "1.1.1.1")
    rate.admit("joe", "8.8.8.8")
    for _ in range(10):
        rate.admit("ann", "")
