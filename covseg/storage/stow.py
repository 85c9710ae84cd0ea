"""DICOM objects to a DICOMweb server: which of some it holds (QIDO-RS), and storing those that it lacks (STOW-RS)."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from urllib.parse import urlencode

from covseg.errors import StorageUnreachable
from covseg.storage.dicomweb_http import JSON_KINDS, Client, parsed, uids

TRIES = 3  # of a batch whose answer got lost; the server is asked what it holds in between
INSTANCE, REFERENCED_INSTANCE, REASON = "00080018", "00081155", "00081197"
STORED, FAILED = "00081199", "00081198"  # sequences of an answer
DUPLICATE = 0x0111  # it holds the object already, which is what was wanted
REASONS = {
    0x0110: "processing failure", 0x0122: "SOP class not supported", 0x0124: "not authorised",
    0xA700: "out of resources", 0xA770: "SOP class not accepted", 0xA900: "data set does not match its SOP class",
    0xC000: "cannot understand", 0xC122: "transfer syntax not supported",
}  # fmt: skip


@dataclass
class Delivery:
    """What became of some objects, by SOPInstanceUID: stored now, held before, or refused and why."""

    stored: set[str] = field(default_factory=set)
    held: set[str] = field(default_factory=set)
    refused: dict[str, str] = field(default_factory=dict)


def deliver(client: Client, objects: Mapping[str, bytes]) -> Delivery:
    """Store what the server does not hold yet; nothing that it holds is sent.

    Parameters
    ----------
    objects : mapping of str to bytes
        SOPInstanceUID to file; a few, for they go in one request.

    Raises
    ------
    StorageUnreachable, StorageDenied
        When the server does not answer, or does not say what became of an object.
    """
    done = Delivery(held=held_of(client, objects))
    for _ in range(TRIES):
        wanted = {uid: objects[uid] for uid in objects if uid not in done.held | done.stored | done.refused.keys()}
        if not wanted:
            return done
        try:
            _store(client, wanted, done)
        except StorageUnreachable as error:
            lost = error
        else:
            lost = StorageUnreachable(f"{client.root} does not say what became of {len(wanted)} objects: run again")
        done.stored |= held_of(client, wanted) & wanted.keys()
    if all(uid in done.held | done.stored | done.refused.keys() for uid in objects):
        return done
    raise lost


def held_of(client: Client, wanted: Collection[str]) -> set[str]:
    """Return which of some objects the server holds, by one search with a list of UIDs."""
    query = urlencode({"SOPInstanceUID": ",".join(sorted(wanted)), "limit": len(wanted)})
    lines = client.json_list(f"/instances?{query}")
    return {uid for line in lines for uid in uids(line, INSTANCE)} & set(wanted)


def _store(client: Client, objects: Mapping[str, bytes], done: Delivery) -> None:
    """Send objects in one request, and one by one where the server refuses the whole of it."""
    answer = client.post("/studies", "application/dicom+json", *_multipart(objects))
    outcome = parsed(answer) if answer.status in (200, 202, 409) and answer.kind in JSON_KINDS else None
    if isinstance(outcome, dict):
        _sort_out(outcome, objects, done)
        return
    if answer.status not in (400, 409, 413, 415, 422):
        raise client.refusal(answer, "an answer to STOW-RS in DICOM JSON")
    if len(objects) == 1:
        done.refused[next(iter(objects))] = f"the server answers {answer.status}"
        return
    for uid, data in objects.items():
        _store(client, {uid: data}, done)


def _sort_out(outcome: dict[str, object], objects: Mapping[str, bytes], done: Delivery) -> None:
    for item in _items(outcome, FAILED):
        (uid,) = uids(item, REFERENCED_INSTANCE)
        reason = _number(item)
        if uid in objects and reason == DUPLICATE:
            done.held.add(uid)
        elif uid in objects:
            done.refused[uid] = REASONS.get(reason, f"failure {reason:04X}")
    stored = {uid for item in _items(outcome, STORED) for uid in uids(item, REFERENCED_INSTANCE)}
    done.stored |= stored & objects.keys() - done.refused.keys() - done.held


def _items(outcome: dict[str, object], tag: str) -> list[dict[str, object]]:
    element = outcome.get(tag)
    items = element.get("Value") if isinstance(element, dict) else None
    return [item for item in items if isinstance(item, dict)] if isinstance(items, list) else []


def _number(item: dict[str, object]) -> int:
    element = item.get(REASON)
    values = element.get("Value") if isinstance(element, dict) else None
    return values[0] if isinstance(values, list) and values and isinstance(values[0], int) else 0


def _multipart(objects: Mapping[str, bytes]) -> tuple[str, bytes]:
    """Return media type and body; the boundary follows from the UIDs."""
    boundary = hashlib.sha256("".join(objects).encode()).hexdigest()
    head = f"--{boundary}\r\nContent-Type: application/dicom\r\n\r\n".encode()
    body = b"".join(piece for data in objects.values() for piece in (head, data, b"\r\n"))
    return f'multipart/related; type="application/dicom"; boundary={boundary}', body + f"--{boundary}--\r\n".encode()
