"""One page of a list, as OpenAI's lists have them. The routes of `/v1` that list things call it.

What Redis or the disk holds is found behind `after` where it lies; `listed` is for what is in memory whole.
"""

import itertools
from collections.abc import Iterable, Sequence
from typing import Any, Literal

from pydantic import BaseModel, Field

from services.errors import InvalidRequest, shown


class PageQuery(BaseModel):
    """The query of a list."""

    limit: int = Field(20, ge=1, le=100)
    after: str = Field("", description="The id behind which the page begins.")
    order: Literal["asc", "desc"] = "desc"


def listed(objects: Sequence[dict[str, Any]], query: PageQuery, what: str) -> Sequence[dict[str, Any]]:
    """The objects, newest first, as the query wants them. Raises InvalidRequest for an `after` that none of them has.

    `what`: the word for one.
    """
    found = objects if query.order == "desc" else objects[::-1]
    if not query.after:
        return found
    ids = [each["id"] for each in found]
    if query.after not in ids:
        raise InvalidRequest(f"after={shown(query.after)} is the id of no {what} of this list", field="after")
    return found[ids.index(query.after) + 1 :]


def page_of(objects: Iterable[dict[str, Any]], limit: int) -> dict[str, Any]:
    """The first `limit` objects; it looks at one more."""
    found = list(itertools.islice(objects, limit + 1))
    page = found[:limit]
    ends = {"first_id": page[0]["id"] if page else None, "last_id": page[-1]["id"] if page else None}
    return {"object": "list", "data": page, **ends, "has_more": len(found) > limit}
