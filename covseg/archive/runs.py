"""The owner of a destination: ``run.json``, and the check that its store honours create-only writes.

In: stores, the scoring config and the id of the project key. Out: a `Run`, small and picklable,
which every later step takes.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass

from covseg.archive.records import MaskMode, RunRecord, read_record
from covseg.errors import UsageError
from covseg.settings.dicom import NO_DICOM, DicomSettings
from covseg.settings.score import ScoringConfig
from covseg.storage import Store
from covseg.storage.conditional_writes import refuse_overwriting

RECORD = "run.json"


@dataclass(frozen=True)
class Run:
    """A destination that was found to be ours.

    Parameters
    ----------
    dest : Store
        Where masks, tables and snapshots go.
    commits : Store
        Where create-only records go; the same as `dest` unless ``--commits`` says otherwise.
    model_id, config_sha256, key_id : str
        What every row of this destination was made with.
    masks : MaskMode
        How label maps are kept: not at all, a PNG each, or packed per shard.
    presence_threshold : float or None
        The model's, 0 to 1, on the infection probability of an image; None where it has none.
    dicom : DicomSettings
        Which DICOM objects are kept beside the masks.
    """

    dest: Store
    commits: Store
    model_id: str
    config_sha256: str
    key_id: str
    masks: MaskMode
    presence_threshold: float | None = None
    dicom: DicomSettings = NO_DICOM


def key_id(project_key: bytes) -> str:
    """Name a project key without telling it: 16 hexadecimal digits.

    Examples
    --------
    >>> key_id(b"k") == key_id(b"k"), key_id(b"k") == key_id(b"l")
    (True, False)
    """
    return hmac.new(project_key, b"covseg project key id", hashlib.sha256).hexdigest()[:16]


def check_conditional_writes(commits: Store) -> None:
    """Refuse a store that cannot keep commits.

    Raises
    ------
    UsageError
        When it overwrites; the message names ``--commits URL``, the way out.
    StorageDenied
        When it cannot be written.
    """
    refuse_overwriting(commits, "Give a store that honours them with --commits URL; masks and tables stay here")


def open_run(
    dest: Store,
    commits: Store,
    config: ScoringConfig,
    key_id: str,
    masks: MaskMode = "png",
    dicom: DicomSettings = NO_DICOM,
) -> Run:
    """Take the destination for this model, config, project key and mask mode, or find it taken so already.

    Raises
    ------
    UsageError
        When it belongs to another model, config, key, mask mode or DICOM settings; the message names both.
    """
    wanted = RunRecord(
        model_id=config.model_id,
        weights_sha256=config.weights_sha256,
        config_sha256=config.digest,
        key_id=key_id,
        masks=masks,
        dicom=dicom,
        dest=_dest_url(dest, commits),
        config=config.model_dump(mode="json"),
    )
    if not commits.create(RECORD, wanted.encode()):
        _check_same(read_record(commits, RECORD, RunRecord), wanted, dest.url)
    return _run(dest, commits, wanted)


def _check_same(record: RunRecord, wanted: RunRecord, url: str) -> None:
    for name in ("model_id", "weights_sha256", "key_id", "masks", "dicom", "dest", "config_sha256"):
        theirs, ours = getattr(record, name), getattr(wanted, name)
        if theirs != ours:
            raise UsageError(
                f"{url} belongs to {name} {theirs!r}, this run has {ours!r}"
                f"{_difference(record, wanted) if name == 'config_sha256' else ''}: "
                "take the same model, options and project key, or another destination"
            )


def _difference(record: RunRecord, wanted: RunRecord) -> str:
    """Name the fields of the config that differ, with both values."""
    ours, theirs = wanted.config, record.config
    fields = [name for name in ours if theirs.get(name) != ours[name]]
    return " (" + "; ".join(f"{name}: {theirs.get(name)!r} there, {ours[name]!r} here" for name in fields) + ")"


def load_run(dest: Store, commits: Store) -> Run:
    """Return the run that a destination belongs to, for commands that have no model.

    Raises
    ------
    UsageError
        When nothing was ever scored into it, or the commits are another destination's.
    """
    try:
        record = read_record(commits, RECORD, RunRecord)
    except FileNotFoundError:
        raise UsageError(f"no {RECORD} in {commits.url}: wanted the DEST (and --commits) of a covseg score") from None
    if record.dest != _dest_url(dest, commits):
        raise UsageError(
            f"the commits in {commits.url} are those of {record.dest or commits.url}, not of {dest.url}: "
            "wanted the DEST and --commits that covseg score was given"
        )
    return _run(dest, commits, record)


def _dest_url(dest: Store, commits: Store) -> str | None:
    """Return the one destination of commits that live elsewhere; None where they lie in it, and may move with it."""
    return None if commits.url == dest.url else dest.url


def _run(dest: Store, commits: Store, record: RunRecord) -> Run:
    made_with = record.model_id, record.config_sha256, record.key_id
    return Run(dest, commits, *made_with, record.masks, record.presence_threshold, record.dicom)
