"""A DICOMweb server as a source, well-behaved and not: every instance once, and a clear stop instead of a hang."""

from __future__ import annotations

import email.utils
import io
import json
import pickle
import time
from collections.abc import Iterator

import pytest
from pydicom import dcmread

from covseg.errors import (
    EnvironmentFailed,
    RadiographRefused,
    Reason,
    StorageDenied,
    StorageUnreachable,
    UsageError,
)
from covseg.records import Entry
from covseg.storage import dicomweb_http, entries, open_source, open_store
from covseg.storage.dicomweb import DicomWebStore
from covseg.storage.dicomweb_http import Client
from covseg.storage.stow import deliver
from tests.dicom_images import dataset, written
from tests.pacs import Pacs, breaks_off, drips, hangs_up, is_silent, running, says, shuffled
from tests.test_dicom import TWELVE_BIT

HTML = b"<html>log in, DOE^JANE</html>"


def instance(number: int, study: int = 1, **changes: object) -> bytes:
    uids = {
        "StudyInstanceUID": f"1.2.{study}",
        "SeriesInstanceUID": f"1.2.{study}.1",
        "SOPInstanceUID": f"1.2.3.{number}",
    }
    return written(dataset(TWELVE_BIT, 12, **(uids | changes)))


@pytest.fixture
def pacs(monkeypatch: pytest.MonkeyPatch) -> Iterator[Pacs]:
    monkeypatch.setattr(dicomweb_http, "_backoff", lambda _: 0.05)
    with running() as server:
        yield server


def store_of(pacs: Pacs, try_s: float = 5, patience_s: float = 10) -> DicomWebStore:
    return DicomWebStore(pacs.root, "Modality=DX", try_s, patience_s)


def test_every_instance_is_listed_once_in_key_order_and_fetched_as_it_is_stored(pacs):
    held = {pacs.hold(data): data for data in (instance(number, number % 3) for number in range(30))}
    store = open_source(pacs.source)
    store.check()
    listed = list(entries(store))
    assert [entry.key for entry in listed] == sorted("/".join(place) for place in held)
    assert {entry.key: store.fetch(entry) for entry in listed} == {"/".join(place): held[place] for place in held}
    assert [entry.key for entry in entries(store, "1.2.2/")] == [entry.key for entry in listed if entry.key[4] == "2"]
    first = store.list_page(limit=7)
    assert [*first.entries, *store.list_page(first.after).entries] == listed
    assert list(entries(pickle.loads(pickle.dumps(store)))) == listed


@pytest.mark.parametrize("seed", range(5))
def test_pages_in_another_order_at_each_request_lose_and_repeat_nothing(pacs, seed):
    places = {pacs.hold(instance(number)) for number in range(40)}
    pacs.lines = shuffled(seed, cap=17)
    assert {tuple(entry.key.split("/")) for entry in entries(store_of(pacs))} == places


def test_a_server_that_does_not_page_and_one_that_never_holds_still_stop_the_run(pacs, monkeypatch):
    for number in range(4):
        pacs.hold(instance(number))
    pacs.lines = lambda all_, _offset, _limit: all_
    with pytest.raises(StorageUnreachable, match="does not page"):
        list(entries(store_of(pacs)))
    pacs.lines = lambda all_, offset, _limit: all_[:1] + all_[offset % 4 :][:1] if offset < 8 else []
    with pytest.raises(StorageUnreachable, match="hold still"):
        list(entries(store_of(pacs)))


def test_each_modality_is_a_search_of_its_own_and_the_reader_s_are_the_default(pacs):
    pacs.hold(instance(1))
    assert len(list(entries(DicomWebStore(pacs.root)))) == 1
    assert [word for word in ("CR", "DX", "RG") if any(f"Modality={word}&" in path for path in pacs.asked)] == [
        "CR",
        "DX",
        "RG",
    ]
    assert list(entries(DicomWebStore(pacs.root, "Modality=CR"))) == []


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize("as_date", [False, True])
def test_a_wish_to_wait_is_respected(pacs, status, as_date):
    pacs.hold(instance(1))
    wish = email.utils.formatdate(time.time() + 2, usegmt=True) if as_date else "1"
    pacs.before = [says(status, Retry_After=wish)]
    start = time.monotonic()
    assert len(list(entries(store_of(pacs)))) == 1
    assert 0.8 < time.monotonic() - start < 4


def test_a_wish_longer_than_our_patience_stops_at_once(pacs):
    pacs.before = [says(503, Retry_After="86400")]
    start = time.monotonic()
    with pytest.raises(StorageUnreachable, match="503 and asks to wait 86400 s"):
        list(entries(store_of(pacs)))
    assert time.monotonic() - start < 2


@pytest.mark.parametrize("fault", [breaks_off, hangs_up, says(500), says(502)])
def test_an_answer_that_fails_once_is_asked_for_again(pacs, fault):
    pacs.hold(instance(1))
    pacs.before = [fault]
    assert len(list(entries(store_of(pacs)))) == 1


@pytest.mark.parametrize(
    ("fault", "error", "words"),
    [
        (says(200, "text/html", HTML), StorageUnreachable, "answered text/html"),
        (says(200, "application/dicom+json", HTML), StorageUnreachable, "application/dicom"),
        (says(200, "application/dicom+json", b'{"a": 1}'), StorageUnreachable, "a list"),
        (says(200, "application/dicom+json", b"[" * 100_000), StorageUnreachable, "a list"),
        (says(200, ""), StorageUnreachable, "answered nothing"),
        (says(302, Location="http://169.254.169.254/"), StorageUnreachable, "302, a redirect"),
        (says(404, "text/html", HTML), StorageUnreachable, "404"),
        (says(401), StorageDenied, "COVSEG_DICOMWEB_TOKEN"),
        (says(403), StorageDenied, "COVSEG_DICOMWEB_TOKEN"),
        (breaks_off, StorageUnreachable, "IncompleteRead"),
        (hangs_up, StorageUnreachable, "RemoteDisconnected"),
        (drips, StorageUnreachable, "TimeoutError"),
        (is_silent, StorageUnreachable, "TimeoutError"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
@pytest.mark.parametrize("call", ["check", "list", "fetch"])
def test_what_is_no_answer_stops_the_run_within_its_deadline(pacs, fault, error, words, call):
    pacs.hold(instance(1))
    pacs.before = [fault] * 50
    store = store_of(pacs, try_s=0.4, patience_s=4)
    calls = {
        "check": store.check,
        "list": lambda: list(entries(store)),
        "fetch": lambda: store.fetch(Entry("1.2.1/1.2.1.1/1.2.3.1", 0, "uid")),
    }
    start = time.monotonic()
    if call == "fetch" and words == "404":
        with pytest.raises(RadiographRefused, match="missing"):
            calls[call]()
        return
    if call == "fetch":
        words = words.replace("a list", "application/dicom")
    with pytest.raises(EnvironmentFailed, match=words) as stopped:
        calls[call]()
    assert isinstance(stopped.value, error)
    assert "DOE" not in str(stopped.value)
    assert time.monotonic() - start < 8


def test_an_instance_that_alone_fails_is_refused_and_others_are_read(pacs):
    pacs.hold(instance(1))
    store, (entry,) = store_of(pacs), list(entries(store_of(pacs)))
    for status, reason in ((403, Reason.ACCESS_DENIED), (500, Reason.CORRUPT)):
        pacs.before = [says(status)] * (4 if status == 500 else 1)
        with pytest.raises(RadiographRefused) as refused:
            store.fetch(entry)
        assert refused.value.reason is reason
    pacs.before = [says(200, "multipart/related; boundary=b", b"--b\r\n\r\nhalf")]
    with pytest.raises(RadiographRefused, match="truncated"):
        store.fetch(entry)
    pacs.before = [says(406)]  # knows no transfer-syntax=*
    assert store.fetch(entry) == pacs.held["1.2.1", "1.2.1.1", "1.2.3.1"]
    pacs.held["1.2.1", "1.2.1.1", "1.2.3.1"] = instance(2)
    with pytest.raises(RadiographRefused, match="changed"):
        store.fetch(entry)
    pacs.held.clear()
    with pytest.raises(RadiographRefused, match="missing"):
        store.fetch(entry)


def test_missing_uids_and_uids_that_stand_twice_are_refused(pacs):
    pacs.hold(instance(1))
    pacs.hold(instance(1, study=2))
    pacs.hold(instance(3))
    pacs.lines = lambda all_, offset, _limit: (
        [*all_, {"00080018": {"vr": "UI"}}, {"00080018": {"Value": [7]}}] if not offset else []
    )
    store = store_of(pacs)
    listed = list(entries(store))
    assert len(listed) == 5
    reasons = []
    for entry in listed:
        try:
            store.fetch(entry)
        except RadiographRefused as refused:
            reasons.append((refused.reason, refused.detail.split()[0]))
    assert reasons == [(Reason.CORRUPT, "its")] * 2 + [(Reason.CORRUPT, "the")] * 2


def test_credentials_come_from_the_environment_alone_and_leave_no_trace(pacs, monkeypatch):
    seen = []
    pacs.before = [lambda handler: bool(seen.append(handler.headers["Authorization"]))] * 3
    monkeypatch.setenv("COVSEG_DICOMWEB_USER", "ray")
    monkeypatch.setenv("COVSEG_DICOMWEB_PASSWORD", "secret-1")
    store = store_of(pacs)
    store.check()
    monkeypatch.setenv("COVSEG_DICOMWEB_TOKEN", "secret-2")
    store.check()
    assert seen == ["Basic cmF5OnNlY3JldC0x", "Bearer secret-2"]
    assert b"secret" not in pickle.dumps(store)
    pacs.before = [says(401)]
    with pytest.raises(StorageDenied) as denied:
        store.check()
    assert "secret" not in str(denied.value)


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("dicomweb+https://ray:secret@pacs/dicom-web", "credentials in the address"),
        ("dicomweb+http://pacs.example/dicom-web", "unencrypted"),
        ("dicomweb+https://pacs/dicom-web?PatientID=7", "'PatientID' is not asked for"),
        ("dicomweb+https://pacs/dicom-web?Modality=", "no value"),
        ("dicomweb+https://pacs/dicom-web?Modality=DX&Modality=CR", "stands twice"),
        ("dicomweb+https:///dicom-web", "no DICOMweb address"),
        ("dicomweb+https://pacs:port/dicom-web", "no URL"),
        ("dicomweb+ftp://pacs/dicom-web", "not an allowed scheme"),
    ],
)
def test_addresses_that_are_not_asked_are_refused_before_any_work(url, words):
    with pytest.raises(UsageError, match=words) as refused:
        open_source(url)
    assert "secret" not in str(refused.value)


def test_only_listed_hosts_are_asked_and_nothing_is_written_to_a_source(pacs, monkeypatch):
    with pytest.raises(UsageError, match="not an allowed scheme"):
        open_store(pacs.source)
    with pytest.raises(UsageError, match="DEST is a folder"):
        open_source(pacs.source).write("a", b"")
    monkeypatch.setenv("COVSEG_DICOMWEB_HOSTS", "pacs.example")
    with pytest.raises(UsageError, match="COVSEG_DICOMWEB_HOSTS"):
        open_source(pacs.source)
    open_source("dicomweb+https://pacs.example/dicom-web")


# --- STOW


def objects(count: int) -> dict[str, bytes]:
    return {f"1.2.3.{number}": instance(number) for number in range(count)}


def client_of(pacs: Pacs) -> Client:
    return Client(pacs.root, 5, 10)


def test_what_the_server_holds_is_not_sent_and_what_it_refuses_is_said(pacs):
    sent = objects(5)
    pacs.hold(sent["1.2.3.0"])
    pacs.refuses = {"1.2.3.1": 0x0122, "1.2.3.2": 0x0111, "1.2.3.3": 0xABCD}
    done = deliver(client_of(pacs), sent)
    assert (done.held, done.stored) == ({"1.2.3.0", "1.2.3.2"}, {"1.2.3.4"})
    assert done.refused == {"1.2.3.1": "SOP class not supported", "1.2.3.3": "failure ABCD"}
    assert "1.2.3.0" not in pacs.posted


def test_an_answer_that_gets_lost_sends_nothing_twice(pacs):
    sent = objects(4)

    def takes_two_and_hangs_up(handler) -> bool:
        for data in list(sent.values())[:2]:
            pacs.hold(data)
        return hangs_up(handler)

    pacs.before = [lambda _: False, takes_two_and_hangs_up]
    done = deliver(client_of(pacs), sent)
    assert done.stored == set(sent)
    assert sorted(pacs.posted) == ["1.2.3.2", "1.2.3.3"]


@pytest.mark.parametrize("status", [400, 413])
def test_a_request_refused_as_a_whole_is_cut_into_single_objects(pacs, status):
    sent = objects(3)
    pacs.before = [lambda _: False, says(status), lambda _: False, says(status)]
    done = deliver(client_of(pacs), sent)
    assert done.stored == {"1.2.3.0", "1.2.3.2"}
    assert done.refused == {"1.2.3.1": f"the server answers {status}"}


@pytest.mark.parametrize(
    "fault", [says(200, "text/html", HTML), says(200, "application/dicom+json", b"{}"), says(200, ""), hangs_up]
)
def test_a_server_that_does_not_say_what_became_of_objects_stops_the_run(pacs, fault):
    pacs.before = [step for _ in range(3) for step in (lambda _: False, fault)]
    with pytest.raises(StorageUnreachable):
        deliver(client_of(pacs), objects(2))
    assert json.dumps(pacs.posted) == "[]"
    assert dcmread(io.BytesIO(objects(1)["1.2.3.0"])).SOPInstanceUID == "1.2.3.0"
