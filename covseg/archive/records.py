"""The records of a destination: what is in them, how they are written, and what is refused when one is read.

A record is JSON with sorted keys and a newline; its bytes follow from its content alone.
"""

from __future__ import annotations

import hashlib
import json
from typing import ClassVar, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

from covseg.errors import UsageError
from covseg.settings.dicom import NO_DICOM, DicomSettings
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

    @classmethod
    def of(cls, stem: str, data: bytes, suffix: str) -> Self:
        """Name an object by its content."""
        digest = hashlib.sha256(data).hexdigest()
        return cls(name=f"{stem}-{digest[:16]}{suffix}", sha256=digest, size=len(data))


class RunRecord(Record):
    """``run.json``: the model, config and project key of a destination, with which every row was made."""

    format: Literal[1] = 1
    model_id: str
    weights_sha256: str
    config_sha256: str
    key_id: str
    masks: MaskMode = Field(description="how label maps are kept")
    dicom: DicomSettings = Field(
        NO_DICOM, exclude_if=lambda dicom: dicom == NO_DICOM, description="which DICOM objects and columns are kept"
    )
    dest: str | None = Field(None, description="URL of the destination of commits that live elsewhere")
    config: dict[str, JsonValue] = Field(
        description="the scoring config as its covseg wrote it; another version's may have other fields"
    )

    @property
    def presence_threshold(self) -> float | None:
        """The model's image-level threshold, where it has one."""
        settings = self.config.get("card")
        thresholds = settings.get("thresholds") if isinstance(settings, dict) else None
        presence = thresholds.get("presence") if isinstance(thresholds, dict) else None
        return presence if isinstance(presence, int | float) else None


class PartRecord(Record):
    """One Parquet part of a plan, and how many images, shards and bytes of images it holds."""

    name: str = Field(description="its key below DEST")
    sha256: str = Field(description="of its bytes")
    generation: int = Field(description="the plan that listed it")
    images: int = Field(alias="films")
    shards: int
    bytes: int
    retry: bool = Field(
        False, exclude_if=lambda retry: not retry, description="planned before; these rows take the place of those"
    )


class Selection(Record):
    """Which images of which source a plan lists."""

    source: str = Field(description="URL")
    include: str = Field(description="glob on the key")
    exclude: str = Field(description="glob on the key")
    limit: int | None = Field(description="only the first matching keys")


class PlanRecord(Selection):
    """``plans/<n>/plan.json``: a listing, cut into shards."""

    format: Literal[1] = 1
    number: int = Field(description="from 1")
    before: str | None = Field(description="sha256 of the plan before")
    shard_size: int = Field(description="images a shard")
    listed: int = Field(description="keys seen")
    parts: tuple[PartRecord, ...] = Field(description="carried ones first")


class CommitRecord(Record):
    """``commits/<shard>.json``: a shard's objects, and counts of its rows."""

    indent: ClassVar[int | None] = None

    format: Literal[1] = 1
    shard: str = Field(description="its id")
    attempt: str = Field(description="who made it")
    images: int = Field(alias="films", description="its rows")
    statuses: dict[str, int]
    reasons: dict[str, int]
    table: NamedObject = Field(description="the rows")
    objects: tuple[NamedObject, ...] = Field(description="masks, probabilities and DICOM objects")


class PlanReference(Record):
    """The plan of a manifest: key and digest of its record."""

    name: str
    sha256: str


class Manifest(Record):
    """``manifests/<n>.json``: snapshot n exists; its counts are over the whole snapshot.

    A later call's options change none of `max_failed`, `max_out_of_scope`, `max_missing`, `hide_keys`, `title`,
    `source_label` and whether there are `overlays`.
    """

    format: Literal[1] = 1
    number: int = Field(description="the plan's")
    plan: PlanReference
    commits: dict[str, str] = Field(description="sha256 of every shard's commit record")
    images: int = Field(alias="films")
    statuses: dict[str, int]
    reasons: dict[str, int]
    grades: dict[str, int] = Field(
        {}, exclude_if=lambda grades: not grades, description="scored images by grade; absent in an older manifest"
    )
    failed_share: float = Field(description="quarantined / (scored + quarantined)")
    max_failed: float
    max_out_of_scope: float = Field(
        1.0, exclude_if=lambda share: share == 1, description="of all images; 1 allows all and is not in the file"
    )
    max_missing: float | None = Field(
        None, exclude_if=lambda limit: limit is None, description="None where it was published before there was one"
    )
    accepted: bool = Field(
        description="an image was scored, and all shares are within their limits; else published with exit code 3"
    )
    hide_keys: bool = Field(description="the table has no keys")
    title: str = Field("", exclude_if=lambda title: not title, description="of the report, where it was given one")
    source_label: str = Field("", exclude_if=lambda label: not label, description="what the report calls the source")
    dicom: dict[str, int] = Field(
        {}, exclude_if=lambda counts: not counts, description="DICOM objects by kind; scored images without any"
    )
    outputs: dict[str, FileRecord] = Field(description="the published files")
    pictures: NamedObject = Field(description="thumbnails of the report")
    overlays: tuple[NamedObject, ...] = Field(
        (), exclude_if=lambda overlays: not overlays, description="of the images that the report shows, if wanted"
    )
    published_by: str = Field(description="attempt")
    published_at: str = Field(description="UTC, when publishing began")
    seconds: dict[str, float] = Field(description="wall times of the run")
    versions: dict[str, str] = Field(description="of covseg, Python and pyarrow")
    mine: bool = Field(
        False, exclude=True, description="this call published it, no other or earlier run did; not in the file"
    )
