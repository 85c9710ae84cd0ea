"""The records of a destination: what is in them, how they are written, and what is refused when one is read.

A record is JSON with sorted keys and a newline; its bytes follow from its content alone.
"""

from __future__ import annotations

import json
from typing import ClassVar, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

from covseg.errors import UsageError
from covseg.settings.environment import code_version
from covseg.storage import Store

MaskMode = Literal["none", "png", "packed"]
R = TypeVar("R", bound="Record")


class Record(BaseModel):
    """What all records share: nothing is changed after it was made, nothing unknown is read."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True, serialize_by_alias=True)
    indent: ClassVar[int | None] = 1

    def encode(self) -> bytes:
        """Return the bytes of the record's file."""
        return (json.dumps(self.model_dump(), sort_keys=True, indent=self.indent) + "\n").encode()

    @classmethod
    def decode(cls, data: bytes, place: str) -> Self:
        """Read a record back.

        Parameters
        ----------
        place : str
            Its name and store, for the message.

        Raises
        ------
        UsageError
            When it is damaged, of a later format, or has a field that this covseg does not know.
        """
        try:
            content = json.loads(data)
        except ValueError:
            raise UsageError(f"{place} is not whole JSON: run covseg verify") from None
        return cls.parse(content, place)

    @classmethod
    def parse(cls, content: JsonValue, place: str) -> Self:
        """Check JSON that was read back, as `decode` does."""
        try:
            return cls.model_validate(content)
        except ValidationError as error:
            raise UsageError(f"{place} {_fault(error)}") from None


def _fault(error: ValidationError) -> str:
    """Say what is wrong with a record, what was wanted and what to do."""
    faults = {".".join(map(str, fault["loc"])): fault for fault in error.errors(include_url=False)}
    advice = f"covseg {code_version()} reads format 1: take the covseg that wrote it, or a newer one"
    if "format" in faults:
        return f"has format {faults['format']['input']!r}, {advice}"
    for field, fault in faults.items():
        if fault["type"] == "extra_forbidden":
            return f"has an unknown field {field!r}, {advice}"
    field, fault = next(iter(faults.items()))
    return f"has a wrong {field} ({fault['msg']}): run covseg verify"


def read_record(store: Store, name: str, kind: type[R]) -> R:
    """Read a record of one kind from its store.

    Raises
    ------
    FileNotFoundError
        When there is none of this name.
    UsageError
        When it cannot be read as one.
    """
    return kind.decode(store.read(name), f"{name} in {store.url}")


class FileRecord(Record):
    """What a file's bytes are; the size is in bytes."""

    sha256: str
    size: int


class NamedObject(FileRecord):
    """An object by its key below DEST, and the bytes it must have."""

    name: str


class RunRecord(Record):
    """``run.json``: the model, config and project key of a destination.

    Attributes
    ----------
    model_id, weights_sha256, config_sha256, key_id : str
        What every row was made with.
    masks : MaskMode
        How label maps are kept.
    dest : str or None
        URL of the destination of commits that live elsewhere.
    config : dict
        The scoring config as its covseg wrote it; another version's may have other fields.
    """

    format: Literal[1] = 1
    model_id: str
    weights_sha256: str
    config_sha256: str
    key_id: str
    masks: MaskMode
    dest: str | None = None
    config: dict[str, JsonValue]

    @property
    def presence_threshold(self) -> float | None:
        """The model's image-level threshold, where it has one."""
        settings = self.config.get("card")
        thresholds = settings.get("thresholds") if isinstance(settings, dict) else None
        presence = thresholds.get("presence") if isinstance(thresholds, dict) else None
        return presence if isinstance(presence, int | float) else None


class PartRecord(Record):
    """One Parquet part of a plan.

    Attributes
    ----------
    name, sha256 : str
        Its key below DEST and the digest of its bytes.
    generation : int
        The plan that listed it.
    images, shards, bytes : int
        What it holds.
    """

    name: str
    sha256: str
    generation: int
    images: int = Field(alias="films")
    shards: int
    bytes: int


class Selection(Record):
    """Which images of which source a plan lists.

    Attributes
    ----------
    source : str
        URL.
    include, exclude : str
        Globs on the key.
    limit : int or None
        Only the first matching keys.
    """

    source: str
    include: str
    exclude: str
    limit: int | None


class PlanRecord(Selection):
    """``plans/<n>/plan.json``: a listing, cut into shards.

    Attributes
    ----------
    number : int
        From 1.
    before : str or None
        sha256 of the plan before.
    shard_size, listed : int
        Images a shard; keys seen.
    parts : tuple of PartRecord
        Carried ones first.
    """

    format: Literal[1] = 1
    number: int
    before: str | None
    shard_size: int
    listed: int
    parts: tuple[PartRecord, ...]


class CommitRecord(Record):
    """``commits/<shard>.json``: a shard's objects.

    Attributes
    ----------
    shard, attempt : str
        Its id, and who made it.
    images : int
        Its rows.
    statuses, reasons : dict of str to int
        Counts of the rows.
    table : NamedObject
        The rows.
    objects : tuple of NamedObject
        Masks and probabilities.
    """

    indent: ClassVar[int | None] = None

    format: Literal[1] = 1
    shard: str
    attempt: str
    images: int = Field(alias="films")
    statuses: dict[str, int]
    reasons: dict[str, int]
    table: NamedObject
    objects: tuple[NamedObject, ...]


class PlanReference(Record):
    """The plan of a manifest: key and digest of its record."""

    name: str
    sha256: str


class Manifest(Record):
    """``manifests/<n>.json``: snapshot n exists.

    Attributes
    ----------
    number, plan : int, PlanReference
        The plan's.
    commits : dict of str to str
        sha256 of every shard's commit record.
    images, statuses, reasons : int, dict of str to int
        Counts over the whole snapshot.
    failed_share, max_failed, accepted : float, float, bool
        quarantined / (scored + quarantined), and how it was judged; not accepted is published, with exit code 3.
    hide_keys : bool
        The table has no keys; like `max_failed`, a later call's options do not change it.
    outputs, pictures : dict of str to FileRecord, NamedObject
        The published files; thumbnails of the report.
    published_by, published_at : str
        Attempt and time (UTC).
    seconds, versions : dict of str to float, dict of str to str
        Wall times of the run; of covseg, Python and pyarrow.
    mine : bool
        This call published it; False: it was there, or another run was first. Not in the file.
    """

    format: Literal[1] = 1
    number: int
    plan: PlanReference
    commits: dict[str, str]
    images: int = Field(alias="films")
    statuses: dict[str, int]
    reasons: dict[str, int]
    failed_share: float
    max_failed: float
    accepted: bool
    hide_keys: bool
    outputs: dict[str, FileRecord]
    pictures: NamedObject
    published_by: str
    published_at: str
    seconds: dict[str, float]
    versions: dict[str, str]
    mine: bool = Field(False, exclude=True)
