"""One resumable listing: pages of the source to content-named plan parts.

Only what the plan before does not have is taken. A part carries, in its Parquet metadata, where its
listing started and stopped, so that a listing that was killed goes on behind its last part.
"""

from __future__ import annotations

import fnmatch
import hashlib
import heapq
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from covseg.archive.parts import Part, Plan, describe, encode, read_part
from covseg.archive.runs import Run
from covseg.records import Entry
from covseg.storage import Store, entries
from covseg.storage.protocol import order

PART_IMAGES = 51_200  # images after which a part is written: about 3 MB
PART_LISTED = 1_000_000  # keys after which a part is written although few of them match


@dataclass(frozen=True)
class Cursor:
    """How far a listing came.

    Parameters
    ----------
    after : str or None
        The last key seen; None at the start.
    done : bool
        Nothing follows.
    listed, matched : int
        Keys seen, and those of them that were asked for.
    """

    after: str | None = None
    done: bool = False
    listed: int = 0
    matched: int = 0


def matches_globs(entry: Entry, include: str, exclude: str) -> bool:
    """Tell whether a key was asked for; the empty objects that stand for folders are no inputs."""
    if entry.size == 0 and entry.key.endswith("/"):
        return False
    return fnmatch.fnmatchcase(entry.key, include) and not fnmatch.fnmatchcase(entry.key, exclude)


class Listing:
    """The listing for the plan behind `before`.

    Parameters
    ----------
    before : Plan or None
        The published plan whose shards are carried over.
    question : dict
        source, include, exclude, limit.
    """

    def __init__(self, run: Run, source: Store, before: Plan | None, question: dict[str, Any], shard_size: int) -> None:
        self.run, self.source, self.before, self.question = run, source, before, question
        self.shard_size = shard_size
        self.number = before.number + 1 if before else 1
        self.cursor = Cursor()
        asked = [question, shard_size, before.sha256 if before else None]
        self._asked = hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()

    def parts(self) -> Iterator[Part]:
        """Yield the parts that an earlier, killed listing wrote, then the rest."""
        for part, cursor in self._found():
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
        """Return what one page holds of what was asked for, and move the cursor."""
        page = self.source.list_page(self.cursor.after)
        include, exclude = self.question["include"], self.question["exclude"]
        wanted = [entry for entry in page.entries if matches_globs(entry, include, exclude)]
        limit = self.question["limit"]
        if limit is not None:
            wanted = wanted[: limit - self.cursor.matched]
        listed, matched = self.cursor.listed + len(page.entries), self.cursor.matched + len(wanted)
        self.cursor = Cursor(page.after, page.after is None or matched == limit, listed, matched)
        return wanted

    def _write(self, fresh: list[Entry], start: Cursor) -> Part:
        note = {"asked": self._asked, "start": asdict(start), "end": asdict(self.cursor)}
        data = encode(fresh, self.shard_size, json.dumps(note).encode())
        part, _ = describe(data, self.number)
        self.run.dest.write(part.name, data)
        return part

    def _found(self) -> Iterator[tuple[Part, Cursor]]:
        """Yield the parts of this same listing that lie there, each going on where the last stopped."""
        found: dict[Cursor, tuple[Part, Cursor]] = {}
        for entry in entries(self.run.dest, f"plans/{self.number}/part-"):
            part, note_bytes = describe(self.run.dest.read(entry.key), self.number)
            note = json.loads(note_bytes)
            if part.name == entry.key and note["asked"] == self._asked:
                found.setdefault(Cursor(**note["start"]), (part, Cursor(**note["end"])))
        cursor = Cursor()
        while cursor in found:
            part, cursor = found.pop(cursor)
            self.run.dest.write(part.name, self.run.dest.read(part.name))  # young again: gc leaves it alone
            yield part, cursor

    def forget(self, parts: list[Part]) -> None:
        """Remove the parts of a listing that found nothing: a later one must look again, not go on from here."""
        for part in parts:
            self.run.dest.delete(part.name)

    def record(self, parts: tuple[Part, ...]) -> bytes:
        """Return the plan's record: the same bytes for the same listing."""
        carried = self.before.parts if self.before else ()
        record = {
            "format": 1,
            "number": self.number,
            "before": self.before.sha256 if self.before else None,
            **self.question,
            "shard_size": self.shard_size,
            "listed": self.cursor.listed,
            "parts": [part.model_dump() for part in carried + parts],
        }
        return (json.dumps(record, sort_keys=True, indent=1) + "\n").encode()


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


def _places(dest: Store, parts: list[Part]) -> Iterator[tuple[bytes, str]]:
    for part in parts:
        for shard in read_part(dest, part):
            yield from ((order(entry.key), entry.etag) for entry in shard.entries)
