"""A first ``labels.csv`` for a set that has images and masks and no table: a row an image, to be looked over.

In: the root of the set. Out: rows ``film,stratum,split``. The stratum says whether the mask marks anything; the split
is drawn from the name, about a quarter to Val. It does not know which images are of one patient.
"""

from __future__ import annotations

import csv
import hashlib
import io
from pathlib import Path

from covseg.data.layout import LABELS, pairs_of
from covseg.data.masks import read_mask
from covseg.errors import UsageError

COLUMNS = ("film", "stratum", "split")
MARKED, CLEAR = "infected", "clear"
VAL_EVERY = 4  # of each stratum


def label_rows(root: Path) -> list[tuple[str, str, str]]:
    """Return a row for every image that has a mask, in the order of their names; each stratum has a Val image.

    Raises
    ------
    UsageError
        When images/ or masks/ is not there, or no image has a mask of its name.
    BadMask
        When a mask cannot be believed.
    """
    found = pairs_of(root)
    if not found:
        raise UsageError(
            f"{root}: no image of images/ has a mask of its name in masks/; wanted images/a.png, masks/a.png"
        )
    strata = {image: MARKED if read_mask(mask, (255, 1)).any() else CLEAR for image, mask in found.items()}
    val: set[str] = set()
    for stratum in (MARKED, CLEAR):
        drawn = sorted((name for name, of in strata.items() if of == stratum), key=_chance)
        val |= set(drawn[::VAL_EVERY]) if len(drawn) > 1 else set()
    return [(name, stratum, "Val" if name in val else "Train") for name, stratum in sorted(strata.items())]


def labels_csv(rows: list[tuple[str, str, str]]) -> str:
    """Return the text of a ``labels.csv``."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([COLUMNS, *rows])
    return text.getvalue()


def write_labels(root: Path, rows: list[tuple[str, str, str]]) -> Path:
    """Write ``labels.csv`` into the set, unless there is one.

    Raises
    ------
    UsageError
        When there is one.
    """
    path = root / LABELS
    try:
        with path.open("x", encoding="utf-8", newline="") as file:
            file.write(labels_csv(rows))
    except FileExistsError:
        raise UsageError(f"{path} is there already: edit it, or move it away to have a new one") from None
    return path


def _chance(name: str) -> str:
    return hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest()
