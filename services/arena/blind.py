"""Which requests are answers of a battle: their ids tell it, so that no front end need ask the database.

Of such an answer a front end shows the text and its end, never what would tell the model before the vote.
"""

PREFIX = "battle-"


def answer_id(battle_id: str, number: int, side: str) -> str:
    """The id of a side's answer to the question of this number, from 0. A battle that is sent again finds it."""
    return f"{PREFIX}{battle_id}-{number}-{side}"


def is_blind(rid: str) -> bool:
    return rid.startswith(PREFIX)
