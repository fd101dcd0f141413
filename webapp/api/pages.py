"""One page of a list, as OpenAI's lists have them: the routes of files, batches and responses."""

import itertools
from collections.abc import Iterable
from typing import Any, Literal

from pydantic import BaseModel, Field


class PageQuery(BaseModel):
    """The query of a list."""

    limit: int = Field(20, ge=1, le=100)
    after: str = Field("", description="The id behind which the page begins.")
    order: Literal["asc", "desc"] = "desc"


def page_of(objects: Iterable[dict[str, Any]], limit: int) -> dict[str, Any]:
    """The first `limit` objects; it looks at one more."""
    found = list(itertools.islice(objects, limit + 1))
    page = found[:limit]
    ends = {"first_id": page[0]["id"] if page else None, "last_id": page[-1]["id"] if page else None}
    return {"object": "list", "data": page, **ends, "has_more": len(found) > limit}
