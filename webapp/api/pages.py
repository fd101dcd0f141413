"""One page of a list, as OpenAI's lists have them: the routes of files, batches and responses."""

import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, Field

from services.errors import InvalidRequest

Item = TypeVar("Item")


class PageQuery(BaseModel):
    """The query of a list."""

    limit: int = Field(20, ge=1, le=100)
    after: str = Field("", description="The id behind which the page begins.")
    order: Literal["asc", "desc"] = "desc"


def listed(items: Sequence[Item], query: PageQuery, id_of: Callable[[Item], str], what: str) -> Sequence[Item]:
    """The items, newest first, as the query wants them. Raises InvalidRequest for an `after` that none of them has."""
    found = items if query.order == "desc" else items[::-1]
    if not query.after:
        return found
    ids = [id_of(item) for item in found]
    if query.after not in ids:
        raise InvalidRequest(f"after is the id of none of your {what}", field="after")
    return found[ids.index(query.after) + 1 :]


def page_of(objects: Iterable[dict[str, Any]], limit: int) -> dict[str, Any]:
    """The first `limit` objects; it looks at one more."""
    found = list(itertools.islice(objects, limit + 1))
    page = found[:limit]
    ends = {"first_id": page[0]["id"] if page else None, "last_id": page[-1]["id"] if page else None}
    return {"object": "list", "data": page, **ends, "has_more": len(found) > limit}
