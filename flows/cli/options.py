"""What the options of several commands have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter
from pydantic import BaseModel, ConfigDict, Field

if TYPE_CHECKING:
    from covseg.storage import Store

Json = Annotated[bool, Parameter(name="--json", help="Print the result as JSON.")]
OUTPUT = Parameter(alias="-o")


@Parameter(name="*")  # every field is a flag of its own
class Options(BaseModel):
    """Options of a command, by flags or by a TOML file; what is not among them is refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Destination(Options):
    """The DEST of a `covseg score`."""

    dest: str = Field(description="Where covseg score put it: a path, file:///path or s3://bucket/prefix.")
    commits: str | None = Field(None, description="Where its commits are, when covseg score was told --commits URL.")
    json_: Json = False

    def stores(self) -> tuple[Store, Store]:
        """Open destination and commits, and learn within seconds whether they let us in."""
        from covseg.storage import open_store

        dest = open_store(self.dest)
        commits = open_store(self.commits) if self.commits else dest
        dest.check()
        commits.check()
        return dest, commits


def same(settings: type[BaseModel], name: str) -> Any:
    """Return default, bounds and description of a field of `settings`, for a command that names its flag otherwise."""
    return settings.model_fields[name]
