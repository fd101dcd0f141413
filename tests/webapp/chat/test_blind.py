"""What a browser is told of a battle's answer before the vote."""

from dataclasses import asdict

import pytest

from services.arena.blind import answer_id, check_free
from services.chat.reader import Done, Status
from services.errors import InvalidRequest
from webapp.chat.blind import blinded


def test_neither_times_nor_counts_nor_words_of_a_failure_are_told() -> None:
    usage = {"prompt_tokens": 31, "completion_tokens": 9, "context_tokens": 4096, "first_token_ms": 12}
    done = Done("failed", 120, "out_of_memory", "model secret-one needs 3 GB", usage, (("reasoning", 0),))
    assert blinded(asdict(done)) == {
        "status": "failed", "offset": 120, "code": "out_of_memory", "parts": (("reasoning", 0),)
    }  # fmt: skip


@pytest.mark.parametrize("state", ["loading", "no_worker", "queued"])
def test_whichever_way_an_answer_waits_it_is_in_the_queue(state: str) -> None:
    status = Status(state, position=3, eta_s=4, context={"context_tokens": 4096})  # type: ignore[arg-type]
    assert blinded(asdict(status)) == {"state": "queued"}


def test_a_guess_under_a_battles_id_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="battle"):
        check_free({"id": answer_id("b1", 0, "left"), "model": "guess"})
    check_free({"id": "0" * 32})
    check_free({"id": ["battle-"]})
    check_free("nothing")
