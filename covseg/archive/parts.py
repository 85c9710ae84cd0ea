"""What a plan is made of: parts of rows, shards of entries; how they are kept and named."""

from __future__ import annotations

import hashlib
import io
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from operator import itemgetter

import pyarrow as pa
import pyarrow.parquet as pq

from covseg.archive.records import NamedObject, PartRecord
from covseg.errors import NotPublished, StorageUnreachable
from covseg.records import Entry
from covseg.storage import Store
from covseg.table import to_parquet

SCHEMA = pa.schema([("shard", pa.string()), ("key", pa.binary()), ("size", pa.int64()), ("etag", pa.string())])


@dataclass(frozen=True)
class Shard:
    """One unit of work: entries in key order, and the hexadecimal digest of them in this order."""

    id: str
    entries: tuple[Entry, ...]


@dataclass(frozen=True)
class Plan:
    """A committed plan.

    Parameters
    ----------
    number : int
        From 1.
    sha256 : str
        Of its record.
    source : str
        URL of what was listed.
    parts : tuple of PartRecord
        Carried ones first, as they were; then this plan's own.
    published : bool
        Its manifest exists: nothing new was found, nothing is pending.
    """

    number: int
    sha256: str
    source: str
    parts: tuple[PartRecord, ...]
    published: bool

    @property
    def images(self) -> int:
        """Images of the whole snapshot, each once, however often it was planned."""
        return sum(part.images for part in self.parts if not part.retry)

    @property
    def shards(self) -> int:
        """Shards of the whole snapshot."""
        return sum(part.shards for part in self.parts)

    @property
    def new_images(self) -> int:
        """Images that this plan added, or goes through again."""
        return sum(part.images for part in self.parts if part.generation == self.number)


def shard_id(members: Sequence[Entry], again: int = 0) -> str:
    """Name a shard by the hash of its members: key, size and ETag of each, lengths first.

    `again` is the number of the plan that goes through them once more, whose commits are others; 0 for a first time.
    """
    digest = hashlib.sha256(f"retry {again}".encode() if again else b"")
    for entry in members:
        for field in (to_stored(entry.key), str(entry.size).encode(), entry.etag.encode()):
            digest.update(len(field).to_bytes(8, "big") + field)
    return digest.hexdigest()[:32]


def encode(members: Sequence[Entry], shard_size: int, note: bytes, again: int = 0) -> bytes:
    """Cut entries into shards and return them as a Parquet part that carries a note."""
    shards = [members[place : place + shard_size] for place in range(0, len(members), shard_size)]
    columns = {
        "shard": [name for shard in shards for name in [shard_id(shard, again)] * len(shard)],
        "key": [to_stored(entry.key) for entry in members],
        "size": [entry.size for entry in members],
        "etag": [entry.etag for entry in members],
    }
    return to_parquet(pa.table(columns, schema=SCHEMA.with_metadata({b"covseg": note})))


def describe(data: bytes, generation: int, *, retry: bool = False) -> tuple[PartRecord, bytes]:
    """Return what a part's bytes hold, and its note."""
    table, named = pq.read_table(io.BytesIO(data)), NamedObject.of(f"plans/{generation}/part", data, ".parquet")
    part = PartRecord(
        name=named.name,
        sha256=named.sha256,
        generation=generation,
        images=table.num_rows,
        shards=len(table["shard"].unique()),
        bytes=sum(table["size"].to_pylist()),
        retry=retry,
    )
    return part, table.schema.metadata[b"covseg"]


def read_part(dest: Store, part: PartRecord) -> Iterator[Shard]:
    """Yield the shards of one part.

    Raises
    ------
    NotPublished
        When the part is gone.
    StorageUnreachable
        When the part is not what its plan says.
    """
    try:
        data = dest.read(part.name)
    except FileNotFoundError:
        raise NotPublished(f"{part.name} in {dest.url} is gone, and its plan with it: run covseg verify") from None
    if hashlib.sha256(data).hexdigest() != part.sha256:
        raise StorageUnreachable(f"{part.name} in {dest.url} is not what its plan names: run covseg verify")
    rows = pq.read_table(io.BytesIO(data)).to_pylist()
    for shard, members in itertools.groupby(rows, key=itemgetter("shard")):
        yield Shard(shard, tuple(Entry(to_key(row["key"]), row["size"], row["etag"]) for row in members))


def to_stored(key: str) -> bytes:
    """Return a key as a part keeps it: Parquet text cannot hold a file name that is not UTF-8."""
    return key.encode("utf-8", "surrogateescape")


def to_key(stored: bytes) -> str:
    """Return a key as its store knows it."""
    return stored.decode("utf-8", "surrogateescape")
