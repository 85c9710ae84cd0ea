"""What the options of several commands have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Group, Parameter
from pydantic import BaseModel, ConfigDict, Field

if TYPE_CHECKING:
    from covseg.storage import Store

LONG = 9  # options of a command whose help is laid out in panels
PANELS = {
    "Which images": ("include", "exclude", "limit", "retry_refused", "split", "strata", "twins", "shifts"),
    "What is written": (
        "output", "out", "masks", "overlay", "pictures", "probability", "dicom", "link_patient", "hide_keys", "commits",
    ),
    "When it is accepted": ("max_failed", "max_out_of_scope", "max_missing"),
    "How it runs": (
        "backend", "precision", "batch", "streams", "workers", "least_workers", "gpus", "shard_size", "timeout_s",
        "minutes", "loaders", "resume", "dry_run", "json_", "track", "draws",
    ),
}  # fmt: skip
_PANEL_OF = {
    name: Group(panel, sort_key=place) for place, (panel, names) in enumerate(PANELS.items()) for name in names
}

Json = Annotated[bool, Parameter(name="--json", help="Print the result as JSON.")]
OUTPUT = Parameter(alias="-o")


@Parameter(name="*")  # every field is a flag of its own
class Options(BaseModel):
    """Options of a command, by flags or by a TOML file; what is not among them is refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @classmethod
    def __pydantic_init_subclass__(cls, **_: Any) -> None:
        for name, field in cls.model_fields.items():
            if len(cls.model_fields) >= LONG and name in _PANEL_OF:
                field.metadata = [*field.metadata, Parameter(group=_PANEL_OF[name])]


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
