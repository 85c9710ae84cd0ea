"""What a snapshot changed against the one before: counts by status, reason and grade, later minus earlier."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from covseg.archive.plans import manifest_name
from covseg.archive.records import Manifest, read_record
from covseg.archive.runs import Run

Changes = dict[str, dict[str, int]]


def changes(run: Run, newest: Manifest) -> Changes:
    """Return the changed counts of ``images``, ``statuses``, ``reasons`` and ``grades``; all of them in the first.

    A manifest without grades, of an older covseg, has no change of them.
    """
    before = read_record(run.commits, manifest_name(newest.number - 1), Manifest) if newest.number > 1 else None
    if before is None:
        return _parts(newest)
    earlier = _parts(before)
    found = {name: _difference(counts, earlier[name]) for name, counts in _parts(newest).items()}
    return found if before.grades or not before.statuses.get("scored") else found | {"grades": {}}


def _parts(manifest: Manifest) -> Changes:
    parts = manifest.statuses, manifest.reasons, manifest.grades
    return {"images": {"all": manifest.images}} | dict(
        zip(("statuses", "reasons", "grades"), map(dict, parts), strict=True)
    )


def _difference(now: Mapping[str, int], before: Mapping[str, int]) -> dict[str, int]:
    moved = Counter(now)
    moved.subtract(before)
    return {name: count for name, count in sorted(moved.items()) if count}
