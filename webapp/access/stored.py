"""What a user stores, beside its bounds: for the user's own eyes and for an administrator's."""

from dataclasses import dataclass

from services.conversations.stored import StoredBytes
from services.jobs.stored_files import StoredFiles


@dataclass(frozen=True)
class Stored:
    """The conversations and the files of `/v1/files` of one installation."""

    conversations: StoredBytes
    files: StoredFiles

    def of(self, user: str) -> dict[str, int | None]:
        """Bytes; a bound that there is not is null. Blocks: call it in a thread."""
        return {
            "conversation_bytes": self.conversations.of(user),
            "most_conversation_bytes": self.conversations.max_bytes,
            "file_bytes": self.files.num_bytes(user),
            "most_file_bytes": self.files.most_bytes,
        }
