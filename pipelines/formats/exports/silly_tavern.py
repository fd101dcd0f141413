"""SillyTavern: a chat with a character, gathered from its lines (`gathering.py`). `foreign.py` calls it.

    {"user_name", "character_name", "chat": [{"name", "is_user", "is_system", "mes", "swipes"}, …]}

A chat begins with the character's greeting, which the step `roles` cuts. `mes` is the swipe that stayed.
"""

from collections.abc import Iterator

from pipelines.formats.exports.dialogue import Dialogue
from pipelines.formats.translation import Format, Record, Translation, objects


def _recognises(record: Record) -> bool:
    return "user_name" in record and "character_name" in record and isinstance(record.get("chat"), list)


def _translate(record: Record, all_branches: bool) -> Iterator[Translation]:
    dialogue = Dialogue()
    for line in objects(record["chat"], "chat"):
        extra = line.get("extra")
        if line.get("is_system"):
            dialogue.leave_out("hidden", line)
        elif isinstance(extra, dict) and extra.get("image"):
            dialogue.say("user" if line["is_user"] else "assistant", [{"type": "image"}], line)
        else:
            dialogue.say("user" if line["is_user"] else "assistant", line["mes"], line)
    yield dialogue.ended({"character": record["character_name"]})


FORMAT = Format("a SillyTavern chat", _recognises, _translate)
