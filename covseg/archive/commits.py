"""A shard's objects, and the one small record that makes them count."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from operator import attrgetter
from types import MappingProxyType

import pyarrow as pa

from covseg import table
from covseg.archive.parts import Shard
from covseg.archive.records import CommitRecord, NamedObject, read_record
from covseg.archive.runs import Run
from covseg.errors import CovsegError, Status
from covseg.records import Row
from covseg.settings.dicom import DICOM_KINDS, DicomKind

WRITERS = 8  # objects of one shard on their way at once
PACKED = pa.schema([("input_id", pa.string()), ("mask", pa.binary()), ("probability", pa.binary())])
NOTHING: Mapping[str, bytes] = MappingProxyType({})


@dataclass(frozen=True)
class Outcome:
    """What became of a shard.

    Parameters
    ----------
    mine : bool
        This attempt's commit counts; False: another attempt was first, and its objects are used.
    attempt : str
        Whose commit counts.
    statuses, reasons : mapping of str to int
        Counts of the rows that count.
    seconds : mapping of str to float
        What the worker spent on it, by stage, in all its threads; empty where nobody counted.
    """

    shard: str
    mine: bool
    attempt: str
    statuses: Mapping[str, int]
    reasons: Mapping[str, int]
    seconds: Mapping[str, float] = field(default_factory=dict)


def commit_shard(
    run: Run,
    shard: Shard,
    rows: Sequence[Row],
    masks: Mapping[str, bytes],
    attempt_id: str,
    probability: Mapping[str, bytes] = NOTHING,
    sidecars: Sequence[NamedObject] = (),
) -> Outcome:
    """Write a shard's objects, then its commit record.

    Parameters
    ----------
    rows : sequence of Row
        One per entry, in the shard's order.
    masks : mapping of input_id to bytes
        Label map PNG of every scored row; ignored under ``masks="none"``.
    attempt_id : str
        Unique to this attempt; stands in the commit record and nowhere else.
    probability : mapping of input_id to bytes
        Probability PNGs, of any scored rows; empty for none.
    sidecars : sequence of NamedObject
        DICOM objects that `write_objects` put there; the rows name them.

    Raises
    ------
    CovsegError
        When rows and entries do not match one to one: a fault of the caller, nothing is committed.
    EnvironmentFailed
        When the store gives way; the shard stays pending.
    """
    masks = NOTHING if run.masks == "none" else masks
    _match(run, shard, rows, masks)
    _match_sidecars(shard, rows, sidecars)
    files = _packed(shard, masks, probability) if run.masks == "packed" else _separate(masks, probability)
    uris = _uris(run, files, masks)
    rows = [replace(row, mask_uri=uris.get(row.input_id)) for row in rows]
    sheet = table.to_parquet(table.to_arrow(rows, table.schema_with(run.dicom)))
    named = NamedObject.of(f"tables/{shard.id}", sheet, ".parquet")
    with ThreadPoolExecutor(WRITERS) as pool:
        list(pool.map(run.dest.write, [file.name for file in (*files, named)], [*files.values(), sheet]))
    record = CommitRecord(
        shard=shard.id,
        attempt=attempt_id,
        images=len(rows),
        statuses=_count(row.status for row in rows),
        reasons=_count(row.reason for row in rows if row.reason),
        table=named,
        objects=tuple(sorted((*files, *sidecars), key=attrgetter("name"))),
    )
    return _commit(run, shard, record)


def write_objects(run: Run, row: Row, objects: Mapping[DicomKind, bytes]) -> tuple[Row, list[NamedObject]]:
    """Write the DICOM objects of one image, at once: those of a whole shard would not fit in memory.

    They count once the shard's commit names them; until then they are orphans, which `gc` removes.

    Returns
    -------
    tuple
        The row with their URIs, and their names for `commit_shard`.
    """
    named = {kind: NamedObject.of(f"dicom/{kind}/{row.input_id}", data, ".dcm") for kind, data in objects.items()}
    for kind, data in objects.items():
        run.dest.write(named[kind].name, data)
    return row.with_dicom({kind: file.name for kind, file in named.items()}), list(named.values())


def commit_name(shard: str) -> str:
    """Return the key of a shard's commit record."""
    return f"commits/{shard}.json"


def _match(run: Run, shard: Shard, rows: Sequence[Row], masks: Mapping[str, bytes]) -> None:
    planned = [(entry.key, entry.etag) for entry in shard.entries]
    if [(row.key, row.etag) for row in rows] != planned:
        raise CovsegError(f"shard {shard.id}: {len(rows)} rows are not its {len(planned)} entries in their order")
    if len({row.input_id for row in rows}) != len(rows):
        raise CovsegError(f"shard {shard.id}: two rows have one input_id")
    if foreign := {row.config_sha256 for row in rows} - {run.config_sha256}:
        raise CovsegError(f"shard {shard.id}: rows of config {foreign.pop()!r} in a run of {run.config_sha256!r}")
    scored = {row.input_id for row in rows if row.status is Status.SCORED}
    if run.masks != "none" and set(masks) != scored:
        raise CovsegError(f"shard {shard.id}: {len(masks)} masks for {len(scored)} scored images")


def _match_sidecars(shard: Shard, rows: Sequence[Row], sidecars: Sequence[NamedObject]) -> None:
    uris = sorted(uri for row in rows for kind in DICOM_KINDS if (uri := getattr(row, f"{kind}_uri")))
    if uris != sorted(file.name for file in sidecars):
        raise CovsegError(f"shard {shard.id}: its rows name {len(uris)} DICOM objects, {len(sidecars)} were written")


def _separate(masks: Mapping[str, bytes], probability: Mapping[str, bytes]) -> dict[NamedObject, bytes]:
    """Return a file each, named by input and content."""
    return {
        NamedObject.of(f"{folder}/{input_id}", data, ".png"): data
        for folder, pictures in (("masks", masks), ("probability", probability))
        for input_id, data in pictures.items()
    }


def _packed(shard: Shard, masks: Mapping[str, bytes], probability: Mapping[str, bytes]) -> dict[NamedObject, bytes]:
    """Return one Parquet file; ten million small PUTs cost about fifty dollars, packed under one."""
    rows = [{"input_id": name, "mask": masks[name], "probability": probability.get(name)} for name in masks]
    if not rows:
        return {}
    data = table.to_parquet(pa.Table.from_pylist(rows, schema=PACKED), "none")
    return {NamedObject.of(f"packed/{shard.id}", data, ".parquet"): data}


def _uris(run: Run, files: Iterable[NamedObject], masks: Mapping[str, bytes]) -> dict[str, str]:
    """Return where each input's mask lies; in a packed file behind a ``#``."""
    if run.masks == "packed":
        return {input_id: f"{file.name}#{input_id}" for file in files for input_id in masks}
    names = [file.name for file in files if file.name.startswith("masks/")]
    return {name[len("masks/") :].partition("-")[0]: name for name in names}


def _commit(run: Run, shard: Shard, record: CommitRecord) -> Outcome:
    """Create the record; when it is there already, the attempt id in it says whose it is.

    A reply that was lost on the way back looks like another's commit, so it is always read back.
    """
    name = commit_name(shard.id)
    mine = run.commits.create(name, record.encode())
    counted = record if mine else read_record(run.commits, name, CommitRecord)
    is_ours = counted.attempt == record.attempt
    return Outcome(shard.id, is_ours, counted.attempt, counted.statuses, counted.reasons)


def _count(values: Iterable[str]) -> dict[str, int]:
    return dict(sorted(Counter(str(value) for value in values).items()))
