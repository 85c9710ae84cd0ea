"""Planned images that are missing or changed when they are read: a few are normal, a folder full is a lost mount."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from covseg.archive import Plan
from covseg.errors import ImagesLost, Status
from covseg.records import Row
from workers.summary import Progress

SHOWN = 3  # folders that a message names


def refuse_losses(rows: Iterable[Row], planned: int, max_missing: float) -> None:
    """Raise `ImagesLost` when more than the share `max_missing` of `planned` images is missing or changed."""
    lost = Counter(row.key.rpartition("/")[0] for row in rows if row.status in (Status.MISSING, Status.CHANGED))
    if lost.total() > max_missing * planned:
        raise ImagesLost(f"{lost.total()} of {planned} images were missing or changed", lost)


def judge_losses(progress: Progress, plan: Plan, max_missing: float) -> None:
    """Raise `ImagesLost` when all that a run lost is more than `max_missing` of the images that the plan added."""
    lost = progress.lost.total() + progress.statuses["missing"] + progress.statuses["changed"]
    if lost <= max_missing * plan.new_images:
        return
    root = plan.source.rstrip("/")
    folders = ", ".join(f"{count} under {root}/{folder}".rstrip("/") for folder, count in _common(progress.lost))
    raise ImagesLost(
        f"not accepted, nothing published: {lost} of {plan.new_images} planned images are missing or changed "
        f"since they were listed, --max-missing allows {max_missing:.1%}: {folders}; mount or restore it, "
        "then run the same command again, which goes on with them; if they were removed on purpose, allow more with "
        "--max-missing",
        progress.lost,
    )


def _common(folders: Mapping[str, int]) -> list[tuple[str, int]]:
    """Return the deepest folders that, at most `SHOWN`, hold all; else the largest of the uppermost."""
    split = {tuple(folder.split("/")): count for folder, count in folders.items()}
    for depth in range(max(map(len, split)), 0, -1):
        grouped = Counter[str]()
        for parts, count in split.items():
            grouped["/".join(parts[:depth])] += count
        if len(grouped) <= SHOWN:
            break
    return grouped.most_common(SHOWN)
