"""What `publish`, `verify` and `gc` share: a destination by its URLs, and how a result is told."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter
from pydantic import BaseModel, ConfigDict, Field

if TYPE_CHECKING:
    from covseg.storage import Store


class Destination(BaseModel):
    """The DEST of a `covseg score`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    dest: str = Field(description="Where covseg score put it: a path, file:///path or s3://bucket/prefix.")
    commits: str | None = Field(None, description="Where its commits are, when covseg score was told --commits URL.")
    json_: Annotated[bool, Parameter(name="--json")] = Field(False, description="Print the result as JSON.")

    def stores(self) -> tuple[Store, Store]:
        """Open destination and commits, and learn within seconds whether they let us in."""
        from covseg.storage import open_store

        dest = open_store(self.dest)
        commits = open_store(self.commits) if self.commits else dest
        dest.check()
        commits.check()
        return dest, commits

    def tell(self, found: dict[str, Any]) -> None:
        """Print a result as lines or as JSON."""
        if self.json_:
            print(json.dumps(found))
            return
        for name, value in found.items():
            print(f"{name:>14}  {value}")
