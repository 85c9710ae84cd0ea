"""Whose destination this is: ``run.json``, and the check that its store can keep a promise.

In: stores, the scoring config and the id of the project key. Out: a `Run`, small and picklable,
which every later step takes.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from dataclasses import dataclass
from typing import Any, Literal

from covseg.errors import UsageError
from covseg.settings.score import ScoringConfig
from covseg.storage import Store
from covseg.storage.conditional_writes import refuse_overwriting

MaskMode = Literal["none", "png", "packed"]
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
    """

    dest: Store
    commits: Store
    model_id: str
    config_sha256: str
    key_id: str
    masks: MaskMode
    presence_threshold: float | None = None


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


def open_run(dest: Store, commits: Store, config: ScoringConfig, key_id: str, masks: MaskMode = "png") -> Run:
    """Take the destination for this model, config, project key and mask mode, or find it taken so already.

    Raises
    ------
    UsageError
        When it belongs to another model, config, key or mask mode; the message names both.
    """
    wanted = {
        "format": 1,
        "model_id": config.model_id,
        "weights_sha256": config.weights_sha256,
        "config_sha256": config.digest,
        "key_id": key_id,
        "masks": masks,
        "dest": _named(dest, commits),
        "config": config.model_dump(mode="json"),
    }
    record = (json.dumps(wanted, sort_keys=True, indent=1) + "\n").encode()
    if not commits.create(RECORD, record):
        _same(json.loads(commits.read(RECORD)), wanted, dest.url)
    return _run(dest, commits, wanted)


def _same(found: dict[str, Any], wanted: dict[str, Any], url: str) -> None:
    for name in ("format", "model_id", "weights_sha256", "key_id", "masks", "dest", "config_sha256"):
        if found.get(name) != wanted[name]:
            raise UsageError(
                f"{url} belongs to {name} {found.get(name)!r}, this run has {wanted[name]!r}"
                f"{_difference(found, wanted) if name == 'config_sha256' else ''}: "
                "take the same model, options and project key, or another destination"
            )


def _difference(found: dict[str, Any], wanted: dict[str, Any]) -> str:
    """Name the fields of the config that differ, with both values."""
    ours, theirs = wanted["config"], found.get("config", {})
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
        found = json.loads(commits.read(RECORD))
    except FileNotFoundError:
        raise UsageError(f"no {RECORD} in {commits.url}: wanted the DEST (and --commits) of a covseg score") from None
    if found.get("dest") != _named(dest, commits):
        theirs = found.get("dest") or commits.url
        raise UsageError(
            f"the commits in {commits.url} are those of {theirs}, not of {dest.url}: "
            "wanted the DEST and --commits that covseg score was given"
        )
    return _run(dest, commits, found)


def _named(dest: Store, commits: Store) -> str | None:
    """Return the one destination of commits that live elsewhere; None where they lie in it, and may move with it."""
    return None if commits.url == dest.url else dest.url


def _run(dest: Store, commits: Store, record: dict[str, Any]) -> Run:
    presence = record["config"]["card"].get("thresholds", {}).get("presence")
    named = {name: record[name] for name in ("model_id", "config_sha256", "key_id", "masks")}
    return Run(dest, commits, **named, presence_threshold=presence)
