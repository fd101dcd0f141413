"""Finds messages and titles by what stands in them. The routes call it.

Every word of a query must stand in a message, anywhere, in upper or lower case: so code, file names and languages
without spaces are found. A query has no operators. An index of trigrams finds words of three characters and more; for
shorter ones the messages are read, since such an index finds nothing (SQLite 3.40) or reads everything (PostgreSQL).
"""

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import text

from services.conversations.tables import storable
from services.database.database import Database

MAX_WORDS = 8
MAX_WORD_CHARS = 200
MAX_TITLES = 5
TRIGRAM = 3
BEFORE_CHARS, AFTER_CHARS = 60, 140  # of a snippet
TITLE = "title"
LIKE_SIGNS = re.compile("[%_!]")

# In the order of an index, newest first, so that a frequent word is found at once: SQLite keeps a CROSS JOIN's order of
# tables. Where words are read for, the newest conversations come first.
_COLUMNS = "m.conversation_id, c.title, m.id AS message_id, m.role, m.content, m.created_ms"
_OURS = "c.owner = :owner AND c.deleted_ms IS NULL"
_BY_INDEX = """
    SELECT {columns} FROM message_search s
    CROSS JOIN search_rows r ON r.number = s.rowid
    CROSS JOIN messages m ON m.id = r.message_id
    CROSS JOIN conversations c ON c.id = m.conversation_id
    WHERE message_search MATCH :match AND {ours} AND NOT m.hidden {words} ORDER BY s.rowid DESC LIMIT :limit
"""
_BY_READING = """
    SELECT {columns} FROM conversations c CROSS JOIN messages m
    WHERE m.conversation_id = c.id AND {ours} AND NOT m.hidden {words}
    ORDER BY c.updated_ms DESC, m.created_ms DESC, m.place DESC LIMIT :limit
"""
_TITLES = """
    SELECT c.id AS conversation_id, c.title, coalesce(c.current_id, '') AS message_id, '{title}' AS role,
        c.title AS content, c.updated_ms AS created_ms
    FROM conversations c WHERE {ours} {words} ORDER BY c.updated_ms DESC LIMIT :limit
"""


@dataclass(frozen=True)
class Hit:
    """A message in which the words stand, or a conversation in whose title they do (`role` is `title`).

    `snippet` are pieces of text, each with whether it is one of the words.
    """

    conversation_id: str
    title: str
    message_id: str
    role: str
    snippet: list[tuple[str, bool]]
    created_ms: int

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


class Search:
    """The messages of one installation."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._condition = _inside_sqlite if database.is_sqlite else _inside_postgresql

    def find(self, owner: str, query: str, limit: int = 30) -> list[Hit]:
        """Titles first, then messages, newest first."""
        words = words_of(query)
        if not words:
            return []
        with self._database.read() as session:
            rows = [
                *session.execute(*self._titles(owner, words)).mappings(),
                *session.execute(*self._messages(owner, words, limit)).mappings(),
            ]
        return [_hit(row, words) for row in rows[:limit]]

    def _titles(self, owner: str, words: Sequence[str]) -> Any:
        condition, values = self._condition("c.title", words)
        statement = _TITLES.format(title=TITLE, ours=_OURS, words=condition)
        return text(statement), {"owner": owner, "limit": MAX_TITLES, **values}

    def _messages(self, owner: str, words: Sequence[str], limit: int) -> Any:
        indexed = [word for word in words if len(word) >= TRIGRAM] if self._database.is_sqlite else []
        condition, values = self._condition("m.content", [word for word in words if word not in indexed])
        statement = (_BY_INDEX if indexed else _BY_READING).format(columns=_COLUMNS, ours=_OURS, words=condition)
        match = {"match": " ".join(map(_phrase, indexed))} if indexed else {}
        return text(statement), {"owner": owner, "limit": limit, **match, **values}


def words_of(query: str) -> list[str]:
    """What must stand in a message, each once."""
    found = storable(query).split()
    return [word[:MAX_WORD_CHARS] for word in dict.fromkeys(found)][:MAX_WORDS]


def _phrase(word: str) -> str:
    """A text of FTS5's query language: nothing in it is an operator."""
    return '"' + word.replace('"', '""') + '"'


def _inside_sqlite(column: str, words: Sequence[str]) -> tuple[str, dict[str, str]]:
    """`instr` is quicker than LIKE, and knows no upper and lower case: it is asked for each."""
    conditions, values = "", dict[str, str]()
    for number, word in enumerate(words):
        spellings = dict.fromkeys([word, word.lower(), word.upper(), word.title()])
        names = {f"word{number}_{n}": spelling for n, spelling in enumerate(spellings)}
        conditions += f" AND ({' OR '.join(f'instr({column}, :{name})' for name in names)})"
        values |= names
    return conditions, values


def _inside_postgresql(column: str, words: Sequence[str]) -> tuple[str, dict[str, str]]:
    names = {f"word{number}": f"%{LIKE_SIGNS.sub(_escaped, word)}%" for number, word in enumerate(words)}
    return "".join(f" AND {column} ILIKE :{name} ESCAPE '!'" for name in names), names


def _escaped(sign: re.Match[str]) -> str:
    return "!" + sign.group()


def _hit(row: Any, words: Sequence[str]) -> Hit:
    snippet = _snippet(row["content"], words)
    return Hit(row["conversation_id"], row["title"], row["message_id"], row["role"], snippet, row["created_ms"])


def _snippet(content: str, words: Sequence[str]) -> list[tuple[str, bool]]:
    """The text around the first of the words. The expression, which may go back far, sees no more than that text."""
    found = re.compile("|".join(re.escape(word) for word in sorted(words, key=len, reverse=True)), re.IGNORECASE)
    first, num_chars = _first(content, words)
    start, end = max(first - BEFORE_CHARS, 0), min(first + num_chars + AFTER_CHARS, len(content))
    cut = content[start:end]
    pieces: list[tuple[str, bool]] = [("…", False)] if start else []
    place = 0
    for match in found.finditer(cut):
        pieces += [(cut[place : match.start()], False), (match.group(), True)]
        place = match.end()
    pieces += [(cut[place:], False), ("…" if end < len(content) else "", False)]
    return [(re.sub(r"\s+", " ", piece), is_hit) for piece, is_hit in pieces if piece]


def _first(content: str, words: Sequence[str]) -> tuple[int, int]:
    """Where the first of the words begins, and its length; the beginning where only another spelling stands there."""
    lower = content.lower()
    places = [(place, len(word)) for word in words if (place := lower.find(word.lower())) >= 0]
    first, num_chars = min(places, default=(0, 0))
    return min(first, len(content)), num_chars  # a few letters are two in lower case
