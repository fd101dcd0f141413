"""What clients have sent and nobody has served: bounded for all of them together."""

from webapp.server.inbox import Inbox, Intake


def intake_of(inbox: Inbox, calls: list[str], name: str) -> Intake:
    return inbox.intake(lambda: calls.append(name))


def test_over_the_bound_whoever_holds_most_is_given_up() -> None:
    calls: list[str] = []
    inbox = Inbox(1000)
    large, small, late = (intake_of(inbox, calls, name) for name in ("large", "small", "late"))
    large.hold(500)
    small.hold(100)
    late.hold(400)
    assert calls == []
    late.hold(50)
    assert calls == ["large"] and large.given_up and inbox.held_bytes == 550
    large.hold(10_000)
    assert inbox.held_bytes == 550, "what is given up holds nothing more"
    large.release()
    large.hold(10)
    assert inbox.held_bytes == 560, "its connection may send another"


def test_of_equals_the_oldest_is_given_up() -> None:
    calls: list[str] = []
    inbox = Inbox(1000)
    for name in ("first", "second", "third"):
        intake_of(inbox, calls, name).hold(400)
    assert calls == ["first"]


def test_one_message_alone_always_has_room() -> None:
    """Its own limit bounds it: whoever allows messages larger than this bound must be able to send one."""
    calls: list[str] = []
    inbox = Inbox(1000)
    intake_of(inbox, calls, "alone").hold(5000)
    assert calls == []
    with Inbox(1000).serving(5000) as room:
        assert room


def test_what_is_whole_is_not_given_up_and_leaves_no_room_for_the_next() -> None:
    calls: list[str] = []
    inbox = Inbox(1000)
    whole, half = intake_of(inbox, calls, "whole"), intake_of(inbox, calls, "half")
    whole.hold(600)
    whole.finish()
    half.hold(300)
    with inbox.serving(350) as room:
        assert room and calls == ["half"] and inbox.held_bytes == 950
        with inbox.serving(100) as more_room:
            assert not more_room
    assert inbox.held_bytes == 600
    whole.release()
    assert inbox.held_bytes == 0
