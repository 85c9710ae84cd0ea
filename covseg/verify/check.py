"""An independent check of a destination: whether everything that was published holds.

In: the stores of a destination; never its source. Out: a `Verdict` with every breach in words. It
shares no code with the writer in `covseg/archive`; it reads the files as the contract describes them
and computes every digest, shard name and sum itself. Eight bytes per row and object stay in memory.
"""

from __future__ import annotations

import hashlib
import io
import json
from array import array
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from covseg.errors import UsageError
from covseg.storage import Store, entries
from covseg.verify.digests import (
    DICOM_COLUMNS,
    Json,
    accepted,
    as_text,
    canonical,
    dicom_fits,
    mask_fits,
    numbers,
    places,
    row_counts,
    shard_name,
    short,
    terminal,
)
from covseg.verify.outputs import output_breaches

OBJECTS = ("masks/", "packed/", "probability/", "dicom/", "tables/", "overlays/")
READ_AT_ONCE = 8


@dataclass
class Verdict:
    """What a destination was found to be.

    Parameters
    ----------
    breaches : list of str
        Empty when everything holds.
    images, missing, objects, orphans : int
        Rows of the newest snapshot; those of them that were missing or changed when they were read; objects whose
        digest was computed; objects that no commit names.
    snapshot : int or None
        Number of the newest manifest.
    """

    breaches: list[str] = field(default_factory=list)
    images: int = 0
    missing: int = 0
    objects: int = 0
    orphans: int = 0
    snapshot: int | None = None


def verify(dest: Store, commits: Store | None = None) -> Verdict:
    """Check the newest snapshot, and that older ones are part of it.

    `commits` is where the create-only records are, when that is not the destination.
    """
    check = _Check(dest, commits or dest)
    try:
        check.run()
    except (KeyError, TypeError, ValueError, UsageError, pa.ArrowException) as error:  # UsageError: a name like ../x
        check.verdict.breaches.append(f"a record or table cannot be read: {type(error).__name__}: {error}")
    return check.verdict


class _Check:
    def __init__(self, dest: Store, commits: Store) -> None:
        self.dest, self.commits = dest, commits
        self.verdict = Verdict()
        self.manifest: Json = {}
        self.run_record: Json = {}
        self.shards: set[str] = set()
        self.rows = array("Q")  # short digests of the rows of all shard tables
        self.named = array("Q")  # of the names of all committed objects
        self.planned = array("Q")  # of key and ETag of all planned images
        self.replaced: dict[int, int] = {}  # of those planned again: the newest plan that did
        self.counted: Counter[str] = Counter()

    def run(self) -> None:
        """Walk manifest, plan, commits, objects, table; go on after a breach as far as one can."""
        manifests = self._manifests()
        if not manifests:
            return self._breach("no manifest: nothing is published")
        self.verdict.snapshot, self.manifest = max(manifests), manifests[max(manifests)]
        self.run_record = self._json(self.commits, "run.json") or {}
        for number, manifest in manifests.items():
            self._plan_of(number, manifest)
            self.named.extend(short(named["name"].encode()) for named in manifest.get("overlays", ()))
            for shard, digest in manifest["commits"].items():
                self._expect(
                    digest == self.manifest["commits"].get(shard), f"manifest {number}: another commit of {shard}"
                )
        plan = self._json(self.commits, self.manifest["plan"]["name"])
        parts = (plan or {}).get("parts", ())
        for part in parts:
            if part.get("retry") and (data := self._read(self.dest, part["name"])):
                self.replaced |= dict.fromkeys(places(data), part["generation"])
        for part in parts:
            self._part(part)
        self._sums()
        self._foreign()
        for named in (self.manifest["pictures"], *self.manifest.get("overlays", ())):
            self._named(named)
        stated, hide_keys = self.manifest["outputs"], self.manifest["hide_keys"]
        self.verdict.breaches += output_breaches(self.dest, stated, hide_keys, numbers(self.rows))
        return None

    def _breach(self, breach: str) -> None:
        self.verdict.breaches.append(breach)

    def _expect(self, holds: bool, breach: str) -> None:
        if not holds:
            self._breach(breach)

    def _read(self, store: Store, name: str) -> bytes | None:
        try:
            return store.read(name)
        except FileNotFoundError:
            self._breach(f"{name} is gone")
            return None

    def _json(self, store: Store, name: str) -> Json | None:
        data = self._read(store, name)
        try:
            return None if data is None else dict(json.loads(data))
        except ValueError:
            self._breach(f"{name} is not whole JSON")
            return None

    def _named(self, named: Json, in_name: bool = True) -> bytes | None:
        """Return an object's bytes when they have the digest and size that a record names."""
        data = self._read(self.dest, named["name"])
        if data is None:
            return None
        digest = hashlib.sha256(data).hexdigest()
        self.verdict.objects += 1
        self._expect(not in_name or digest[:16] in named["name"], f"{named['name']} is not named by its content")
        if digest != named["sha256"] or len(data) != named.get("size", len(data)):
            self._breach(f"{named['name']} has other bytes than its record names")
            return None
        return data

    def _manifests(self) -> dict[int, Json]:
        names = [entry.key for entry in entries(self.commits, "manifests/")]
        manifests = {int(Path(name).stem): self._json(self.commits, name) for name in names}
        return {number: manifest for number, manifest in sorted(manifests.items()) if manifest is not None}

    def _plan_of(self, number: int, manifest: Json) -> None:
        data = self._read(self.commits, manifest["plan"]["name"])
        held = data is not None and hashlib.sha256(data).hexdigest() == manifest["plan"]["sha256"]
        self._expect(held and manifest["number"] == number, f"manifest {number}: its plan is another")

    # --- plan and shards

    def _part(self, part: Json) -> None:
        data = self._named({"name": part["name"], "sha256": part["sha256"]})
        if data is None:
            return
        sheet = pq.read_table(io.BytesIO(data))
        shards: dict[str, list[tuple[bytes, int, str]]] = {}
        for row in sheet.to_pylist():
            shards.setdefault(row["shard"], []).append((row["key"], row["size"], row["etag"]))
        self._expect(part["films"] == len(sheet) and part["shards"] == len(shards), f"{part['name']}: sums differ")
        again = part["generation"] if part.get("retry") else 0
        for shard, members in shards.items():
            self._expect(shard_name(members, again) == shard, f"shard {shard} is not named by its members")
            self._expect(shard not in self.shards, f"shard {shard} is planned twice")
            self.shards.add(shard)
            planned = [short(key + b"\0" + etag.encode()) for key, _, etag in members]
            self.planned.extend(() if again else planned)
            newer = (self.replaced.get(place, 0) > part["generation"] for place in planned)
            gone = {(as_text(key), etag) for (key, _, etag), later in zip(members, newer, strict=True) if later}
            self._shard(shard, members, gone)

    def _shard(self, shard: str, members: list[tuple[bytes, int, str]], gone: set[tuple[str, str]]) -> None:
        name = f"commits/{shard}.json"
        data, record = self._read(self.commits, name), self._json(self.commits, name)
        if data is None or record is None:
            return
        digest = hashlib.sha256(data).hexdigest()
        self._expect(digest == self.manifest["commits"].get(shard), f"{name} is not the one of the manifest")
        self._expect(record["shard"] == shard, f"{name} is of another shard")
        objects = [record["table"], *record["objects"]]
        self.named.extend(short(named["name"].encode()) for named in objects)
        with ThreadPoolExecutor(READ_AT_ONCE) as pool:
            sheet, *_ = pool.map(self._named, objects)
        if sheet is not None:
            rows = pq.read_table(io.BytesIO(sheet)).to_pylist()
            self._rows(shard, members, rows, record)
            kinds = bool(self.run_record.get("dicom", {}).get("kinds"))
            for row in (row for row in rows if (row["key"], row["etag"]) not in gone):
                self.counted.update(row_counts(row, dicom=kinds, grades="grades" in self.manifest))
                self.rows.append(short(canonical(row, hide_keys=self.manifest["hide_keys"])))

    def _rows(self, shard: str, members: list[tuple[bytes, int, str]], rows: list[Json], record: Json) -> None:
        """Check clause 2 in one shard: its rows are its planned images, each once, with one terminal status."""
        planned = Counter((as_text(key), size, etag) for key, size, etag in members)
        committed = Counter((row["key"], row["size"], row["etag"]) for row in rows)
        self._expect(planned == committed, f"shard {shard}: its rows are not its {len(members)} planned images")
        masks = {named["name"] for named in record["objects"] if named["name"].startswith(("masks/", "packed/"))}
        objects = {named["name"] for named in record["objects"] if named["name"].startswith("dicom/")}
        kinds = self.run_record.get("dicom", {}).get("kinds", ())
        for row in rows:
            self._expect(terminal(row), f"{row['input_id']}: status {row['status']} with reason {row['reason']}")
            self._expect(mask_fits(row, self.run_record["masks"], masks), f"{row['input_id']}: mask not committed")
            self._expect(dicom_fits(row, kinds, objects), f"{row['input_id']}: DICOM objects not those committed")
            objects -= {row.get(name) for name in DICOM_COLUMNS}
        self._expect(not objects, f"commits/{shard}.json: {len(objects)} DICOM objects of no row")
        makers = {(row["model_id"], row["config_sha256"]) for row in rows}
        ours = (self.run_record["model_id"], self.run_record["config_sha256"])
        self._expect(makers <= {ours}, f"shard {shard}: rows of another model or config than run.json names")
        statuses = Counter(row["status"] for row in rows)
        self._expect(dict(statuses) == record["statuses"], f"commits/{shard}.json: counts differ from its rows")

    # --- the whole

    def _sums(self) -> None:
        stated = {f"status {name}": count for name, count in self.manifest["statuses"].items()}
        stated |= {f"reason {name}": count for name, count in self.manifest["reasons"].items()}
        stated |= {f"grade {name}": count for name, count in self.manifest.get("grades", {}).items()}
        stated |= {f"dicom {name}": count for name, count in self.manifest.get("dicom", {}).items() if count}
        self._expect(stated == dict(self.counted), "the manifest's counts are not those of the rows")
        self.verdict.images = len(self.rows)
        self._expect(
            len(self.rows) == self.manifest["films"] == len(self.planned), "images, rows and plan differ in number"
        )
        self._expect(len(np.unique(numbers(self.planned))) == len(self.planned), "an image is planned twice")
        self._expect(set(self.manifest["commits"]) == self.shards, "the manifest's shards are not the plan's")
        self.verdict.missing = self.counted["status missing"] + self.counted["status changed"]
        holds = self.manifest["accepted"] == accepted(self.manifest, self.counted, len(self.rows))
        self._expect(holds, "the manifest is accepted, or not, against its own limits")

    def _foreign(self) -> None:
        """Look for commits that no plan knows, and count objects that no commit names."""
        known = {f"commits/{shard}.json" for shard in self.shards | self._open_shards()}
        for entry in entries(self.commits, "commits/"):
            self._expect(entry.key in known, f"{entry.key} belongs to no plan")
        named = numbers(self.named)
        for folder in OBJECTS:
            listed = numbers(short(entry.key.encode()) for entry in entries(self.dest, folder))
            self.verdict.orphans += int((~np.isin(listed, named)).sum())

    def _open_shards(self) -> set[str]:
        """Return the shards of a plan that is not published yet."""
        numbers = [
            int(name.key.split("/")[1]) for name in entries(self.commits, "plans/") if name.key.endswith("plan.json")
        ]
        if max(numbers, default=0) <= (self.verdict.snapshot or 0):
            return set()
        plan = self._json(self.commits, f"plans/{max(numbers)}/plan.json") or {}
        parts = [self._read(self.dest, part["name"]) for part in plan.get("parts", ())]
        tables = [pq.read_table(io.BytesIO(part), columns=["shard"]) for part in parts if part is not None]
        return {shard for table in tables for shard in table["shard"].unique().to_pylist()}
