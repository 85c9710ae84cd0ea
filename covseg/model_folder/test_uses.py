"""A record of each use of the Test split, beside the model that was judged.

A test set that is looked at often is no test set any more: every use is written down before its
numbers are shown.
"""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from covseg.errors import UsageError

LEDGER = "test-uses.jsonl"


def is_test(split: str) -> bool:
    """Tell whether uses of this split are recorded."""
    return split.casefold() == "test"


def check_writable(folder: Path, reference: str | None = None) -> None:
    """Refuse before the first image when the use could not be written down, or would be in a cache only.

    Parameters
    ----------
    folder : Path
        Of the model.
    reference : str or None
        The version in a registry that the folder is a cached copy of.

    Raises
    ------
    UsageError
        When the model folder cannot be written to, or is a cached copy.
    """
    if reference:
        raise UsageError(
            f"a use of the Test split is recorded in {LEDGER} beside the model, and {reference} is a copy in a cache: "
            "covseg models pull it -o DIR, then evaluate DIR"
        )
    if not os.access(folder, os.W_OK):
        raise UsageError(
            f"{folder} is read-only: a use of the Test split must be recorded in {LEDGER} beside the model"
        )


def append(folder: Path, entry: dict[str, Any]) -> int:
    """Add one line with the time of day; return the number of uses so far, this one included."""
    path = folder / LEDGER
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps({"time": datetime.now(UTC).isoformat(timespec="seconds"), **entry}) + "\n")
        file.flush()
        os.fsync(file.fileno())
    return sum(1 for line in path.read_text(encoding="utf-8").splitlines() if line)
