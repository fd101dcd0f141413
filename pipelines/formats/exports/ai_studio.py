"""Google AI Studio: a prompt as it lies in Google Drive. `foreign.py` calls it.

{"runSettings": {"model"}, "systemInstruction": {"parts"}, "chunkedPrompt": {"chunks": [{"role", "text"}, …]}}
"""

from collections.abc import Iterator, Mapping
from typing import Any

from pipelines.formats.exports.dialogue import Dialogue
from pipelines.formats.translation import Format, Record, Translation, objects

MEDIA = ("driveImage", "inlineImage", "inlineFile", "inlineData", "driveDocument", "driveAudio", "driveVideo",
         "youtubeVideo")  # fmt: skip
WORK = ("executableCode", "codeExecutionResult", "functionCall", "functionResponse")


def _translate(record: Record, all_branches: bool) -> Iterator[Translation]:
    dialogue = Dialogue(_said(record.get("systemInstruction") or {}))
    for chunk in objects(record["chunkedPrompt"].get("chunks"), "chunkedPrompt.chunks"):
        _add(dialogue, chunk)
    model = str((record.get("runSettings") or {}).get("model") or "").removeprefix("models/")
    yield dialogue.ended({"id": record.get("id"), "model": model})


def _said(content: Mapping[str, Any]) -> str:
    if isinstance(content.get("text"), str):
        return str(content["text"])
    parts = [part for part in content.get("parts") or () if isinstance(part, dict) and not part.get("thought")]
    return "".join(str(part.get("text") or "") for part in parts)


def _add(dialogue: Dialogue, chunk: dict[str, Any]) -> None:
    role = str(chunk.get("role"))
    if chunk.get("isThought"):
        dialogue.leave_out("thoughts", chunk)
    elif chunk.get("errorMessage"):
        dialogue.leave_out("error_message", chunk)
    elif any(name in chunk for name in WORK):
        dialogue.leave_out("tool_turn", chunk)
    elif role == "model" and chunk.get("finishReason") not in (None, "", "STOP"):
        dialogue.stop("interrupted", chunk)
    else:
        media = next((name for name in MEDIA if name in chunk), "")
        text: Any = [{"type": media}] if media else _said(chunk)
        dialogue.say("assistant" if role == "model" else role, text, chunk)


FORMAT = Format("an AI Studio prompt", lambda record: isinstance(record.get("chunkedPrompt"), dict), _translate)
