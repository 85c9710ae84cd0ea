"""What `publish`, `verify`, `gc` and `score` share: a destination by its URLs, and how a result is told."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter
from pydantic import BaseModel, ConfigDict, Field

if TYPE_CHECKING:
    from covseg.archive import Manifest
    from covseg.storage import Store
    from workers.summary import Summary


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


def say_what_is_kept(found: Manifest | Summary, snapshot: int, *, hide_keys: bool, max_failed: float) -> None:
    """Say on stderr what of the options a published snapshot does not take, because it keeps its own."""
    if hide_keys and not found.hide_keys:
        print(
            f"covseg: snapshot {snapshot} was published with its keys and keeps them; --hide-keys counts from the next "
            "one on: score into another DEST to leave them out now",
            file=sys.stderr,
        )
    if max_failed != found.max_failed:
        print(
            f"covseg: snapshot {snapshot} was judged by --max-failed {found.max_failed:g} and stays so; "
            f"{max_failed:g} counts from the next one on",
            file=sys.stderr,
        )
