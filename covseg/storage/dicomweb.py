"""A DICOMweb server as a source: QIDO-RS lists, WADO-RS reads, nothing is written.

A key is ``<study>/<series>/<instance>``, three UIDs, which name an object for ever; so its ETag says nothing of its
bytes, and neither does its size, 0: the hash of the bytes stands in the row. A search has no order to rely on, so a
listing is walked until it holds as many different instances as it has lines.
"""

# ruff: noqa: ARG002 - a store has methods that a source only refuses
from __future__ import annotations

import bisect
import hashlib
import json
import re
from collections import Counter
from pathlib import Path
from typing import NoReturn
from urllib.parse import parse_qsl, urlencode

from covseg.errors import RadiographRefused, Reason, Stage, StorageUnreachable, UsageError
from covseg.records import Entry
from covseg.storage.dicomweb_http import CHECK_S, PATIENCE_S, TRY_S, Answer, Client, OversizeBody, uids
from covseg.storage.protocol import LARGEST_IMAGE, Page, missing, order

PAGE, WALKS = 1000, 12  # lines asked for at once; walks before a listing that does not hold still is given up
TAGS = {"study": "0020000D", "series": "0020000E", "instance": "00080018"}
# What a listing may be narrowed by: the query stands in plans, logs and Prefect, so nothing that names a patient.
FILTERS = (
    "Modality", "StudyDate", "SeriesDate", "StudyInstanceUID", "SeriesInstanceUID", "SOPClassUID", "BodyPartExamined",
    "StationName", "Manufacturer",
)  # fmt: skip
MODALITIES = "CR,DX,RG"  # unless the query names others: what the reader takes
KNOWN, REPEATED, UNNAMED = "uid", "repeated", "unnamed"  # ETags
_UID = re.compile(r"[0-9.]{1,64}")
_ANY = 'multipart/related; type="application/dicom"; transfer-syntax=*'
_ONE = 'multipart/related; type="application/dicom"'


class DicomWebStore:
    """The instances that a search on a DICOMweb server finds; read only.

    Parameters
    ----------
    root : str
        Of the service; see `covseg.storage.dicomweb_http.Client`.
    query : str
        QIDO-RS attributes of `FILTERS`; several modalities are joined by commas.

    Raises
    ------
    UsageError
        For a root that is none, or an attribute that is not among `FILTERS`.
    """

    def __init__(self, root: str, query: str = "", try_s: float = TRY_S, patience_s: float = PATIENCE_S) -> None:
        self._filters = _filters(query)
        self._client = Client(root, try_s, patience_s)
        self.url = f"dicomweb+{self._client.root}" + (f"?{query}" if query else "")
        self._query = query
        self._listed: list[Entry] | None = None

    def __reduce__(self) -> tuple[type[DicomWebStore], tuple[str, str, float, float]]:
        """Travel without connections and without a listing under way."""
        return DicomWebStore, (self._client.root, self._query, self._client.try_s, self._client.patience_s)

    def check(self) -> None:
        """Search for one instance; wrong credentials, no answer, or no DICOMweb show within seconds."""
        self._client.json_list(self._search({**self._filters, "Modality": self._modalities()[0]}, 1, 0), CHECK_S)

    def list_page(self, after: str | None = None, limit: int = 1000, prefix: str = "") -> Page:
        """List in key order; the whole search is walked for the first page, and held until the last."""
        if after is None or self._listed is None:
            self._listed = self._list()
        start = 0 if after is None else bisect.bisect_right(self._listed, order(after), key=lambda one: order(one.key))
        rest = [entry for entry in self._listed[start:] if entry.key.startswith(prefix)]
        if len(rest) > limit:
            return Page(rest[:limit], rest[limit - 1].key)
        self._listed = None
        return Page(rest, None)

    def _list(self) -> list[Entry]:
        found: set[tuple[str, str, str]] = set()
        for modality in self._modalities():
            found |= self._walk({**self._filters, "Modality": modality})
        times = Counter(instance for *_, instance in found)
        entries = [_entry(place, times[place[2]]) for place in found]
        return sorted(entries, key=lambda entry: order(entry.key))

    def _modalities(self) -> list[str]:
        return [name for name in self._filters["Modality"].split(",") if name]

    def _walk(self, filters: dict[str, str]) -> set[tuple[str, str, str]]:
        """Return all that one search finds.

        Pages of a search without an order may repeat lines, and then leave out others; so walks are joined until
        they hold as many instances as the last one had lines.
        """
        found: set[tuple[str, str, str]] = set()
        for _ in range(WALKS):
            walked, lines = self._pages(filters)
            found |= walked
            if lines in (len(walked), len(found)):
                return walked if lines == len(walked) else found
        raise StorageUnreachable(
            f"the listing of {self._client.root} does not hold still: {WALKS} walks gave {len(found)} instances, the "
            f"last had {lines} lines; narrow the query, such as by StudyDate, or run again when nothing is stored"
        )

    def _pages(self, filters: dict[str, str]) -> tuple[set[tuple[str, str, str]], int]:
        """Return the instances on all pages, and how many lines these have."""
        found: set[tuple[str, str, str]] = set()
        lines, page = 0, None
        while following := self._client.json_list(self._search(filters, PAGE, lines)):
            if following == page:
                raise StorageUnreachable(
                    f"{self._client.root} answers the same page of its listing again: it does not page; "
                    "narrow the query, such as by StudyDate"
                )
            page = following
            lines += len(page)
            found |= {_place(item) for item in page}
            if lines > 10 * max(len(found), PAGE):
                break
        return found, lines

    def _search(self, filters: dict[str, str], limit: int, offset: int) -> str:
        fields = [("includefield", TAGS["study"]), ("includefield", TAGS["series"])]
        paging = [("limit", str(limit)), ("offset", str(offset))]
        return "/instances?" + urlencode([*filters.items(), *fields, *paging])

    def read(self, key: str) -> bytes:
        """Return an instance's bytes."""
        try:
            return self.fetch(Entry(key, 0, KNOWN))
        except RadiographRefused as refusal:
            if refusal.reason is Reason.MISSING:
                raise FileNotFoundError(key) from None
            raise

    def fetch(self, entry: Entry) -> bytes:
        """Return an instance as it is stored, found to name its SOPInstanceUID."""
        _refuse_listed(entry)
        path = "/studies/{}/series/{}/instances/{}".format(*entry.key.split("/"))
        try:
            answer = self._client.get(path, _ANY)
            if answer.status in (400, 406, 415):
                answer = self._client.get(path, _ONE)
        except OversizeBody as error:
            detail = f"more than the {LARGEST_IMAGE} bytes that any image has"
            raise RadiographRefused(Reason.TOO_LARGE, Stage.FETCH, detail) from error
        data = self._instance(answer)
        if entry.key.rpartition("/")[2].encode() not in data:
            detail = "the server sent an object that does not name the SOPInstanceUID asked for"
            raise RadiographRefused(Reason.CHANGED, Stage.FETCH, detail)
        return data

    def _instance(self, answer: Answer) -> bytes:
        if answer.status in (404, 410):
            raise missing()
        if answer.status in (403, 500):
            self.check()  # raises where it is the server, not this object
            reason = Reason.ACCESS_DENIED if answer.status == 403 else Reason.CORRUPT
            detail = f"the server answers {answer.status} to every try for this object, and lists others"
            raise RadiographRefused(reason, Stage.FETCH, detail)
        if answer.status == 200 and answer.kind == "application/dicom" and answer.body:
            return answer.body
        if answer.status != 200 or answer.kind != "multipart/related" or not answer.body:
            raise self._client.refusal(answer, "a DICOM object")
        return _first_part(answer)

    def write(self, key: str, data: bytes) -> NoReturn:
        """Refuse: a DICOMweb server is a source."""
        raise _read_only(self.url)

    def create(self, key: str, data: bytes) -> NoReturn:
        """Refuse."""
        raise _read_only(self.url)

    def modified(self, key: str) -> float:
        """Return 0: DICOMweb does not say."""
        return 0.0

    def delete(self, key: str) -> NoReturn:
        """Refuse."""
        raise _read_only(self.url)

    def upload(self, path: Path, key: str) -> NoReturn:
        """Refuse."""
        raise _read_only(self.url)

    def download(self, key: str, path: Path) -> None:
        """Write an instance into a file."""
        path.write_bytes(self.read(key))

    def stale_uploads(self, older_than_s: float) -> list[str]:
        """There are none."""
        return []

    def abort_upload(self, name: str) -> None:
        """There is none."""


def _filters(query: str) -> dict[str, str]:
    """Return a query as attributes, with the modalities that the reader takes unless it names some."""
    pairs = parse_qsl(query, keep_blank_values=True)
    for name, value in pairs:
        if name not in FILTERS:
            raise UsageError(
                f"{name[:40]!r} is not asked for: the query stands in plans and logs, and may hold {', '.join(FILTERS)}"
            )
        if not value or not re.fullmatch(r"[\w.,*:+ -]{1,200}", value):
            raise UsageError(f"{name} has no value that can be searched for: wanted one such as {name}=VALUE")
    if len(dict(pairs)) != len(pairs):
        raise UsageError("an attribute stands twice in the query: join its values by commas")
    return {"Modality": MODALITIES, **dict(pairs)}


def _place(item: dict[str, object]) -> tuple[str, str, str]:
    """Return study, series and instance of a line; one that names none of them by what it says."""
    study, series, instance = uids(item, *TAGS.values())
    if all(map(_UID.fullmatch, (study, series, instance))):
        return study, series, instance
    return UNNAMED, "", hashlib.sha256(json.dumps(item, sort_keys=True).encode()).hexdigest()[:16]


def _entry(place: tuple[str, str, str], times: int) -> Entry:
    if place[0] == UNNAMED:
        return Entry(f"{UNNAMED}/{place[2]}", 0, UNNAMED)
    return Entry("/".join(place), 0, KNOWN if times == 1 else REPEATED)


def _refuse_listed(entry: Entry) -> None:
    """Refuse what its line of the listing already shows to be unusable."""
    if entry.etag == UNNAMED:
        detail = "the server lists it without a UID of study, series or instance, so it cannot be asked for"
    elif entry.etag == REPEATED:
        detail = "its SOPInstanceUID stands in several series or studies: which image it names is not known"
    elif len(entry.key.split("/")) != len(TAGS) or not all(map(_UID.fullmatch, entry.key.split("/"))):
        detail = "its key is not study/series/instance, three UIDs"
    else:
        return
    raise RadiographRefused(Reason.CORRUPT, Stage.FETCH, detail)


def _first_part(answer: Answer) -> bytes:
    """Return the first part of a multipart body."""
    mark = b"--" + answer.parameters.get("boundary", "").encode()
    start = answer.body.find(mark)
    head = answer.body.find(b"\r\n\r\n", start)
    end = answer.body.find(b"\r\n" + mark, head + 2)
    if len(mark) == 2 or min(start, head, end) < 0:
        raise RadiographRefused(Reason.TRUNCATED, Stage.FETCH, "the server's multipart answer has no whole part")
    return answer.body[head + 4 : end]


def _read_only(url: str) -> UsageError:
    return UsageError(f"{url.partition('?')[0]} is a source, nothing is written to it: DEST is a folder or a bucket")
