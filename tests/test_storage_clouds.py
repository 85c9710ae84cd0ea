"""What only Google's and Microsoft's object stores can do wrong; the behaviour suite is in ``test_storage.py``."""

from __future__ import annotations

import hashlib
import os
import pickle
import socket
import sys
import time
import traceback
from pathlib import Path
from urllib.parse import quote

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from covseg.archive import check_conditional_writes
from covseg.errors import RadiographRefused, StorageDenied, StorageUnreachable, UsageError
from covseg.storage import Store, entries, open_store
from covseg.storage.arrow import arrow_filesystem
from covseg.storage.objects import CHECKSUM, ObjectStore
from covseg.verify import verify
from tests.archives import images, make_run, score
from tests.clouds import GoogleDouble, azure_request
from tests.conftest import free_port

pytestmark = pytest.mark.service
MISNAMED = ["a\nb.png", "../../etc/passwd", "a//b", "/rooted", "./x", "x/", ""]


@pytest.fixture(params=["az", "gs"])
def bucket(request: pytest.FixtureRequest) -> str:
    return f"{request.param}://{request.getfixturevalue(request.param + '_bucket')}"


@pytest.fixture
def store(bucket: str) -> Store:
    return open_store(f"{bucket}/deep/er")


def test_a_key_that_the_client_cannot_name_is_refused(store: Store) -> None:
    for key in MISNAMED:
        with pytest.raises(UsageError, match="joined by single slashes"):
            store.write(key, b"1")
    assert list(entries(store)) == []


def test_the_prefix_bounds_what_is_listed(bucket: str) -> None:
    open_store(f"{bucket}/pre").write("in", b"1")
    open_store(f"{bucket}/prefix").write("out", b"1")
    assert [entry.key for entry in entries(open_store(f"{bucket}/pre/"))] == ["in"]
    assert [entry.key for entry in entries(open_store(bucket))] == ["pre/in", "prefix/out"]


def test_a_listing_that_is_resumed_elsewhere_goes_on_behind_the_key(store: Store) -> None:
    keys = [f"{folder}/{number:02}.png" for folder in ("a", "a.b", "c") for number in range(5)]
    for key in keys:
        store.write(key, b"1")
    keys.sort()
    page = store.list_page(None, 7)
    assert page.after == keys[6]
    other = pickle.loads(pickle.dumps(store))
    assert [entry.key for entry in other.list_page(page.after).entries] == keys[7:]


def test_a_listing_goes_on_over_the_pages_of_the_server(gs_bucket: str) -> None:
    keys = [f"{number:05}.png" for number in range(2_500)]
    GoogleDouble.objects.update({f"{gs_bucket}/in/{key}": (b"1", None) for key in keys})
    store = open_store(f"gs://{gs_bucket}/in")
    assert [entry.key for entry in entries(store)] == keys
    assert [entry.key for entry in store.list_page("01234.png", 3).entries] == keys[1235:1238]


def test_a_prefix_that_is_no_folder_does_not_list_the_folders_beside_it(store: Store, bucket: str) -> None:
    for key in ("masks/0001.png", "severity.csv", "severity.parquet", "severityx/1"):
        store.write(key, b"1")
    asked = []
    children = ObjectStore._children
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ObjectStore, "_children", lambda self, folder: asked.append(folder) or children(self, folder))
        assert [entry.key for entry in entries(store, "severity.")] == ["severity.csv", "severity.parquet"]
    assert asked == [""]


def test_an_empty_object_that_stands_for_a_folder_is_no_image(az_bucket: str, azure_server: int) -> None:
    for path in ("in/", "in/empty%20folder/", "in/below/"):
        azure_request(azure_server, f"{az_bucket}/{path}", "", x_ms_blob_type="BlockBlob")
    store = open_store(f"az://{az_bucket}/in")
    store.write("below/empty.png", b"")
    store.write("below/film.png", b"1")
    assert [(entry.key, entry.size) for entry in entries(store)] == [("below/empty.png", 0), ("below/film.png", 1)]


@pytest.mark.parametrize("key", ["a//b.png", "a/../b.png"])
def test_a_key_of_others_that_the_client_cannot_name_stops_the_listing(
    bucket: str, key: str, request: pytest.FixtureRequest
) -> None:
    scheme, _, name = bucket.partition("://")
    if scheme == "gs":
        GoogleDouble.objects[f"{name}/in/{key}"] = (b"1", None)
    else:
        port = request.getfixturevalue("azure_server")
        azure_request(port, f"{name}/in/{quote(key, safe='/')}", "", x_ms_blob_type="BlockBlob")
    with pytest.raises(UsageError, match=r"an empty part.*rename it"):
        list(entries(open_store(f"{bucket}/in")))


def test_a_large_file_goes_up_in_parts_and_is_checked_as_a_whole(az_bucket: str, tmp_path: Path) -> None:
    store = open_store(f"az://{az_bucket}")
    (tmp_path / "in").write_bytes(os.urandom(20 * 2**20))
    store.upload(tmp_path / "in", "large")
    (entry,) = entries(store)
    assert store.fetch(entry) == (tmp_path / "in").read_bytes()
    store.download("large", tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == (tmp_path / "in").read_bytes()
    assert store.stale_uploads(0) == []


def test_bytes_without_their_checksum_are_not_used(az_bucket: str, tmp_path: Path) -> None:
    store = open_store(f"az://{az_bucket}")
    assert isinstance(store, ObjectStore)
    wrong = {CHECKSUM: hashlib.md5(b"others").hexdigest()}
    store._call(lambda client: client.put("film.png", b"pixels", attributes=wrong))
    (entry,) = entries(store)
    with pytest.raises(RadiographRefused, match="checksum_mismatch"):
        store.fetch(entry)
    for call in (lambda: store.read("film.png"), lambda: store.download("film.png", tmp_path / "out")):
        with pytest.raises(StorageUnreachable, match="MD5"):
            call()


def test_both_clouds_pass_the_probe_of_create_only_writes(bucket: str) -> None:
    store = open_store(f"{bucket}/scored")
    check_conditional_writes(store)
    assert list(entries(store)) == []


def test_an_archive_is_planned_committed_and_published_and_the_next_run_does_what_is_new(bucket: str) -> None:
    source, run = open_store(f"{bucket}/in"), make_run(open_store(f"{bucket}/out"))
    for key, data in images(5).items():
        source.write(key, data)
    _, done, _ = score(run, source, shard_size=2)
    assert done == 3
    source.write("new.png", b"a new one")
    plan, done, manifest = score(run, source, attempt="second", shard_size=2)
    assert (done, plan.images, manifest.number) == (1, 6, 2)
    rows = pq.read_table(pa.BufferReader(run.dest.read("severity.parquet"))).to_pylist()
    assert {row["key"]: row["sha256"] for row in rows} == {
        entry.key: hashlib.sha256(source.fetch(entry)).hexdigest() for entry in entries(source)
    }
    assert verify(run.dest).breaches == []


def test_wrong_credentials_are_denied_and_not_told(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", "Y2FuYXJ5")
    monkeypatch.setenv("GOOGLE_BEARER_TOKEN", "canary")
    store = open_store(bucket)
    for call in (store.check, lambda: store.read("x"), lambda: store.create("x", b"1"), lambda: store.delete("x")):
        with pytest.raises(StorageDenied, match="refused our credentials") as caught:
            call()
        assert not any(word in "".join(traceback.format_exception(caught.value)) for word in ("canary", "Y2FuYXJ5"))


def test_a_signature_in_a_request_is_not_told(az_bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AZURE_STORAGE_ACCOUNT_KEY")
    monkeypatch.setenv("AZURE_STORAGE_SAS_TOKEN", "sv=2021-08-06&sp=r&sr=c&sig=canary")
    with pytest.raises(StorageDenied, match="refused our credentials") as caught:
        open_store(f"az://{az_bucket}").check()
    assert "canary" not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize(
    ("url", "settings"),
    [
        ("az://bucket", {}),
        ("gs://bucket", {"GOOGLE_APPLICATION_CREDENTIALS": "/nowhere/canary.json"}),
        ("gs://bucket", {"GOOGLE_SERVICE_ACCOUNT": "/nowhere/canary.json"}),
    ],
)
def test_no_credentials_at_all_are_denied(url: str, settings: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith(("AZURE_", "GOOGLE_"))]:
        monkeypatch.delenv(name)
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(StorageDenied, match="no usable credentials") as caught:
        open_store(url).check()
    assert "canary" not in str(caught.value)


def test_a_bucket_that_is_not_there_is_named(bucket: str) -> None:
    store = open_store(bucket.partition("//")[0] + "//no-such-bucket-here")
    for call in (store.check, lambda: list(entries(store)), lambda: store.write("x", b"1"), lambda: store.read("x")):
        with pytest.raises(StorageUnreachable, match="no such bucket"):
            call()


def test_an_object_of_the_archive_tier_is_told_apart_from_wrong_credentials(az_bucket: str, azure_server: int) -> None:
    store = open_store(f"az://{az_bucket}")
    store.write("film.png", b"1")
    (entry,) = entries(store)
    azure_request(azure_server, f"{az_bucket}/film.png", "comp=tier", x_ms_access_tier="Archive")
    with pytest.raises(StorageDenied, match=r"archive tier .* restore"):
        store.fetch(entry)


@pytest.mark.parametrize("scheme", ["az", "gs"])
@pytest.mark.parametrize("listens", [False, True])
def test_a_server_that_does_not_answer_is_unreachable_by_the_deadline(
    scheme: str, listens: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = free_port()
    for name, value in {
        "AZURE_STORAGE_ACCOUNT_NAME": "account", "AZURE_STORAGE_ACCOUNT_KEY": "Y2FuYXJ5",
        "AZURE_STORAGE_ENDPOINT": f"http://127.0.0.1:{port}/account",
        "GOOGLE_BASE_URL": f"http://127.0.0.1:{port}", "GOOGLE_BEARER_TOKEN": "canary",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    store = ObjectStore("az" if scheme == "az" else "gs", "bucket", deadline_s=2)
    with socket.socket() as server:
        server.bind(("127.0.0.1", port))
        if listens:
            server.listen()
        for call in (lambda: store.read("x"), lambda: store.create("x", b"1"), lambda: list(entries(store))):
            start = time.monotonic()
            with pytest.raises(StorageUnreachable, match="check endpoint and network") as caught:
                call()
            assert time.monotonic() - start < 6
            assert "canary" not in str(caught.value)


@pytest.mark.parametrize("scheme", ["az", "gs"])
def test_a_missing_library_is_said_with_its_extra(scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("covseg.storage.objects", "covseg.storage.object_errors"):
        monkeypatch.delitem(sys.modules, name)
    for name in ("obstore", "obstore.store", "obstore.exceptions"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(UsageError, match=rf"needs obstore.* pip install 'covseg\[{scheme}\]'"):
        open_store(f"{scheme}://bucket/x")


def test_only_listed_buckets_open_when_a_list_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COVSEG_BUCKETS", "ours")
    assert open_store("az://ours/x").url == "az://ours/x"
    with pytest.raises(UsageError, match="not among the allowed"):
        open_store("gs://theirs/x")


def test_checkpoints_of_a_training_are_refused(bucket: str) -> None:
    with pytest.raises(UsageError, match="wanted a folder or s3://bucket/prefix"):
        arrow_filesystem(bucket)
