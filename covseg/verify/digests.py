"""How the checker names, shortens and judges single things; written from the contract, not from the writer."""

from __future__ import annotations

import hashlib
import io
import json
from collections import Counter
from collections.abc import Collection, Iterable
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from covseg.errors import Reason, Status

Json = dict[str, Any]
DICOM = ("seg", "sr", "sc")
DICOM_COLUMNS = tuple(f"{kind}_uri" for kind in DICOM)


def shard_name(members: list[tuple[bytes, int, str]], again: int = 0) -> str:
    """Return the first 32 hex digits of the SHA-256 over key, size and ETag of each, each behind its length.

    Images that plan `again` goes through once more stand behind ``retry`` and its number.
    """
    text = b"retry %d" % again if again else b""
    for key, size, etag in members:
        for part in (key, b"%d" % size, etag.encode()):
            text += len(part).to_bytes(8, "big") + part
    return hashlib.sha256(text).hexdigest()[:32]


def as_text(key: bytes) -> str:
    """Return a planned key as the table shows it."""
    return key.decode("utf-8", "surrogateescape").encode("utf-8", "backslashreplace").decode()


def terminal(row: Json) -> bool:
    """Tell whether status and reason are of the closed sets and fit; a refusal has a reason, a score none."""
    if row["status"] == Status.SCORED:
        return row["reason"] is None
    return row["reason"] in set(Reason) and Reason(row["reason"]).status == row["status"]


def mask_fits(row: Json, mode: str, committed: set[str]) -> bool:
    """Tell whether a row points at its own committed mask, as the run keeps masks; without one, at nothing."""
    uri = row["mask_uri"]
    if row["status"] != Status.SCORED or mode == "none":
        return uri is None
    name, _, packed = (uri or "").partition("#")
    own = packed == row["input_id"] if mode == "packed" else uri and uri.startswith(f"masks/{row['input_id']}-")
    return bool(own) and name in committed


def dicom_fits(row: Json, kinds: Collection[str], committed: set[str]) -> bool:
    """Tell whether a row points at its own committed DICOM objects: all kinds of the run, or none.

    Only the segmentation may lack alone: of a row without lungs.
    """
    made = {kind: row[name] for kind, name in zip(DICOM, DICOM_COLUMNS, strict=True) if row.get(name)}
    own = all(uri.startswith(f"dicom/{kind}/{row['input_id']}-") for kind, uri in made.items())
    lacks = set(kinds) - set(made)
    whole = not made or not lacks or (lacks == {"seg"} and "lungs_not_found" in row["qc_flags"])
    scored = not made or row["status"] == Status.SCORED
    return own and whole and scored and set(made) <= set(kinds) and set(made.values()) <= committed


def row_counts(row: Json, *, dicom: bool, grades: bool) -> list[str]:
    """Name what a row adds to the manifest's counts, as far as it has those of DICOM objects and of grades."""
    counted = [f"{name} {row[name]}" for name in ("status", "reason", *(["grade"] * grades)) if row.get(name)]
    if not dicom:
        return counted
    made = [f"dicom {kind}" for kind, name in zip(DICOM, DICOM_COLUMNS, strict=True) if row.get(name)]
    return counted + (made or ["dicom without"] * (row["status"] == Status.SCORED))


def places(part: bytes) -> list[int]:
    """Shorten key and ETag of every image of a plan's part."""
    rows = pq.read_table(io.BytesIO(part), columns=["key", "etag"]).to_pylist()
    return [short(row["key"] + b"\0" + row["etag"].encode()) for row in rows]


def accepted(manifest: Json, counted: Counter[str], rows: int) -> bool:
    """Judge counts of rows by a manifest's own limits; an older one was judged by its first alone."""
    scored, failed, missing, changed, outside = (
        counted[f"status {name}"] for name in ("scored", "quarantined", "missing", "changed", "out_of_scope")
    )
    if failed / max(1, scored + failed) > manifest["max_failed"]:
        return False
    if "max_missing" not in manifest:
        return True
    within = (missing + changed) / max(1, rows) <= manifest["max_missing"]
    return within and outside / max(1, rows) <= manifest.get("max_out_of_scope", 1) and scored >= min(1, rows)


def cell(value: object) -> str:
    """Return what a CSV reader finds of a value: lists joined, formulas disarmed, carriage returns visible."""
    if isinstance(value, str | list):
        text = ";".join(value) if isinstance(value, list) else value
        quote = "'" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else ""
        return quote + text.replace("\r", "\\r")
    return "" if value is None else str(value)


def canonical(row: Json, *, hide_keys: bool) -> bytes:
    """Return a row as text without what is only known of the whole table, or hidden in it."""
    flags = [flag for flag in row["qc_flags"] or [] if flag != "duplicate_content"]
    dropped = {"duplicate_of", "days_since_first", *(["key"] if hide_keys else [])}
    # a column that is younger than a shard is null in the table, and absent from the shard
    kept = {name: value for name, value in row.items() if name not in dropped and value is not None}
    kept["qc_flags"] = flags
    return json.dumps(kept, sort_keys=True).encode()


def short(text: bytes) -> int:
    """Shorten anything to eight bytes."""
    return int.from_bytes(hashlib.sha256(text).digest()[:8])


def numbers(values: Iterable[int]) -> np.ndarray[tuple[int], np.dtype[np.uint64]]:
    """Return short digests as an array."""
    return np.fromiter(values, np.uint64)
