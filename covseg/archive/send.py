"""The published DICOM objects of a destination, to a DICOMweb server: each once, resumable.

In: a `Run` and a `Client`. Out: `Sent`. What a server took is kept in ``sent/<server>/``, a record for some hundred
objects; where a killed `send` left none, the server is asked which it holds. An object's UID follows from what it
says, so the same UID is the same object.
"""

from __future__ import annotations

import hashlib
import io
import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import pyarrow.parquet as pq
from pydantic import Field

from covseg.archive.manifests import published_table
from covseg.archive.records import Record, read_record
from covseg.archive.runs import Run
from covseg.dicom import instance_uid
from covseg.errors import NotPublished, UsageError
from covseg.settings.dicom import DicomKind
from covseg.storage import entries
from covseg.storage.dicomweb_http import Client
from covseg.storage.stow import deliver

FOLDER = "sent/"
KEPT, BATCH, BATCH_BYTES = 256, 16, 32 * 2**20  # objects of a record; objects and bytes of one request


class SentRecord(Record):
    """``sent/<server>/<digest>.json``: objects that a server has taken."""

    indent: ClassVar[int | None] = None

    format: Literal[1] = 1
    server: str = Field(description="root of its DICOMweb service")
    objects: tuple[str, ...] = Field(description="their keys below DEST")


@dataclass
class Sent:
    """What a `send` did: objects by kind, how many were stored now or held before, and refusals with their reasons."""

    objects: dict[str, int] = field(default_factory=dict)
    stored: int = 0
    held: int = 0
    refused: dict[str, str] = field(default_factory=dict)


def send(
    run: Run, client: Client, kinds: Sequence[DicomKind] = (), tell: Callable[[int, int], None] | None = None
) -> Sent:
    """Send every published object of these kinds, all where none is named, that the server has not taken yet.

    Raises
    ------
    NotPublished
        Without a snapshot, or when a published object is gone or is not what was committed.
    UsageError
        When the run makes no such objects.
    StorageUnreachable, StorageDenied
        When the server gives way; what it has taken is kept, and the same call goes on.
    """
    names = _published(run, kinds or run.dicom.kinds)
    sent = Sent(objects=dict(Counter(name.split("/")[1] for name in names)))
    place = f"{FOLDER}{hashlib.sha256(client.root.encode()).hexdigest()[:16]}/"
    records = (read_record(run.dest, entry.key, SentRecord) for entry in entries(run.dest, place))
    taken = {name for record in records for name in record.objects}
    sent.held = len(taken.intersection(names))
    rest = iter([name for name in names if name not in taken])
    while chunk := list(itertools.islice(rest, KEPT)):
        done = [name for batch in _batches(run, chunk) for name in _deliver(client, batch, sent)]
        record = SentRecord(server=client.root, objects=tuple(done)).encode()
        if done:
            run.dest.write(f"{place}{hashlib.sha256(record).hexdigest()[:32]}.json", record)
        if tell:
            tell(sent.stored + sent.held + len(sent.refused), len(names))
    return sent


def _published(run: Run, kinds: Sequence[DicomKind]) -> list[str]:
    """Return the keys of the newest snapshot's objects, image by image."""
    missing = [kind for kind in kinds if kind not in run.dicom.kinds]
    if missing or not kinds:
        raise UsageError(
            f"{run.dest.url} has no DICOM objects {', '.join(missing)}".rstrip()
            + ": it was scored without such a --dicom; score into another DEST with it"
        )
    rows = pq.read_table(io.BytesIO(published_table(run)), columns=[f"{kind}_uri" for kind in kinds]).to_pylist()
    return [name for row in rows for name in row.values() if name]


def _batches(run: Run, names: Sequence[str]) -> Iterator[dict[str, tuple[str, bytes]]]:
    """Yield few objects at a time, by SOPInstanceUID."""
    batch: dict[str, tuple[str, bytes]] = {}
    size = 0
    for name in names:
        data = _read(run, name)
        if batch and (len(batch) == BATCH or size + len(data) > BATCH_BYTES):
            yield batch
            batch, size = {}, 0
        batch[instance_uid(data)] = name, data
        size += len(data)
    yield batch


def _read(run: Run, name: str) -> bytes:
    """Return an object, found to be the committed one: its name ends in its digest."""
    try:
        data = run.dest.read(name)
    except FileNotFoundError:
        raise NotPublished(f"{name} in {run.dest.url} is gone: run covseg verify") from None
    if not name.endswith(f"-{hashlib.sha256(data).hexdigest()[:16]}.dcm"):
        raise NotPublished(f"{name} in {run.dest.url} is not what was committed: run covseg verify")
    return data


def _deliver(client: Client, batch: dict[str, tuple[str, bytes]], sent: Sent) -> list[str]:
    """Send a batch, count what came of it, and return the keys that the server holds now."""
    delivery = deliver(client, {uid: data for uid, (_, data) in batch.items()})
    sent.stored += len(delivery.stored)
    sent.held += len(delivery.held)
    sent.refused |= {batch[uid][0]: reason for uid, reason in delivery.refused.items()}
    return [name for uid, (name, _) in batch.items() if uid not in delivery.refused]
