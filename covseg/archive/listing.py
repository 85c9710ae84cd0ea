"""One resumable listing: pages of the source to content-named plan parts.

Only what the plan before does not have is taken. A part carries, in its Parquet metadata, where its
listing started and stopped, so that a listing that was killed goes on behind its last part.
"""

from __future__ import annotations

import hashlib
import heapq
import json
from collections.abc import Iterator

from pydantic import Field

from covseg.archive.parts import Plan, describe, encode, read_part
from covseg.archive.records import PartRecord, PlanRecord, Record, Selection
from covseg.archive.runs import Run
from covseg.records import Entry
from covseg.storage import Store, entries, matches_globs
from covseg.storage.protocol import order

PART_IMAGES = 51_200  # images after which a part is written: about 3 MB
PART_LISTED = 1_000_000  # keys after which a part is written although few of them match


class Cursor(Record):
    """How far a listing came."""

    after: str | None = Field(None, description="the last key seen; None at the start")
    done: bool = Field(False, description="nothing follows")
    listed: int = Field(0, description="keys seen")
    matched: int = Field(0, description="those of them that the selection takes")


class ListingNote(Record):
    """In a part's Parquet metadata: where its listing started and stopped, before and behind this part."""

    listing: str = Field(alias="asked", description="digest of selection, shard size and the plan before")
    start: Cursor
    end: Cursor

    def encode(self) -> bytes:
        """Return the note in the order of its fields: a part is named by its bytes, and this is in them."""
        return json.dumps(self.model_dump()).encode()


class Listing:
    """The listing for the plan behind `before`.

    Parameters
    ----------
    before : Plan or None
        The published plan whose shards are carried over.
    selection : Selection
        What is listed.
    """

    def __init__(self, run: Run, source: Store, before: Plan | None, selection: Selection, shard_size: int) -> None:
        self.run, self.source, self.before, self.selection = run, source, before, selection
        self.shard_size = shard_size
        self.number = before.number + 1 if before else 1
        self.cursor = Cursor()
        settings = [selection.model_dump(), shard_size, before.sha256 if before else None]
        self._digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()

    def parts(self) -> Iterator[PartRecord]:
        """Yield the parts that an earlier, killed listing wrote, then the rest."""
        for part, cursor in self._earlier():
            self.cursor = cursor
            yield part
        known = _Known(self.run.dest, self.before)
        fresh: list[Entry] = []
        start = self.cursor
        while not self.cursor.done:
            fresh += [entry for entry in self._page() if entry not in known]
            enough = len(fresh) >= PART_IMAGES or self.cursor.listed - start.listed >= PART_LISTED
            if enough or (self.cursor.done and fresh):
                yield self._write(fresh, start)
                fresh, start = [], self.cursor

    def _page(self) -> list[Entry]:
        """Return the selected entries of one page, and move the cursor."""
        page = self.source.list_page(self.cursor.after)
        include, exclude, limit = self.selection.include, self.selection.exclude, self.selection.limit
        selected = [entry for entry in page.entries if matches_globs(entry, include, exclude)]
        if limit is not None:
            selected = selected[: limit - self.cursor.matched]
        listed, matched = self.cursor.listed + len(page.entries), self.cursor.matched + len(selected)
        done = page.after is None or matched == limit
        self.cursor = Cursor(after=page.after, done=done, listed=listed, matched=matched)
        return selected

    def _write(self, fresh: list[Entry], start: Cursor) -> PartRecord:
        note = ListingNote(listing=self._digest, start=start, end=self.cursor)
        data = encode(fresh, self.shard_size, note.encode())
        part, _ = describe(data, self.number)
        self.run.dest.write(part.name, data)
        return part

    def _earlier(self) -> Iterator[tuple[PartRecord, Cursor]]:
        """Yield the parts of this same listing that lie there, each going on where the last stopped."""
        earlier: dict[Cursor, tuple[PartRecord, Cursor]] = {}
        for entry in entries(self.run.dest, f"plans/{self.number}/part-"):
            part, metadata = describe(self.run.dest.read(entry.key), self.number)
            note = ListingNote.decode(metadata, f"the note in {entry.key} in {self.run.dest.url}")
            if part.name == entry.key and note.listing == self._digest:
                earlier.setdefault(note.start, (part, note.end))
        cursor = Cursor()
        while cursor in earlier:
            part, cursor = earlier.pop(cursor)
            self.run.dest.write(part.name, self.run.dest.read(part.name))  # young again: gc leaves it alone
            yield part, cursor

    def forget(self, parts: list[PartRecord]) -> None:
        """Remove the parts of a listing that found nothing: a later one must list again, not go on from here."""
        for part in parts:
            self.run.dest.delete(part.name)

    def record(self, parts: tuple[PartRecord, ...]) -> PlanRecord:
        """Return the plan's record: the same for the same listing."""
        carried = self.before.parts if self.before else ()
        return PlanRecord(
            **dict(self.selection),
            number=self.number,
            before=self.before.sha256 if self.before else None,
            shard_size=self.shard_size,
            listed=self.cursor.listed,
            parts=carried + parts,
        )


class _Known:
    """What a plan covers, asked for in key order; nothing of it is held."""

    def __init__(self, dest: Store, plan: Plan | None) -> None:
        parts = plan.parts if plan else ()
        numbers = sorted({part.generation for part in parts})
        generations = [[part for part in parts if part.generation == number] for number in numbers]
        self._rest = heapq.merge(*(_places(dest, generation) for generation in generations))
        self._held = next(self._rest, None)

    def __contains__(self, entry: Entry) -> bool:
        place, etags = order(entry.key), set()
        while self._held and self._held[0] <= place:
            if self._held[0] == place:
                etags.add(self._held[1])
            self._held = next(self._rest, None)
        return entry.etag in etags


def _places(dest: Store, parts: list[PartRecord]) -> Iterator[tuple[bytes, str]]:
    for part in parts:
        for shard in read_part(dest, part):
            yield from ((order(entry.key), entry.etag) for entry in shard.entries)
