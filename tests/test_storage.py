"""One behaviour suite for every store, and what only a bucket can do wrong."""

from __future__ import annotations

import errno
import hashlib
import os
import pickle
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from covseg.archive import check_conditional_writes
from covseg.errors import RadiographRefused, StorageDenied, StorageFull, StorageUnreachable, UsageError
from covseg.records import Entry
from covseg.storage import SCHEMES, LocalStore, MemoryStore, Store, entries, open_store, overlap
from covseg.storage.protocol import LARGEST_IMAGE, order
from tests.conftest import await_port, free_port, make_bucket

BUCKETS = {"s3": "s3", "ceph": "s3", "az": "az", "gs": "gs"}  # a server, and the scheme that leads to it
STORES = ["local", "memory", "outside", *(pytest.param(name, marks=pytest.mark.service) for name in BUCKETS)]
LEGAL_KEYS = [
    "=HYPERLINK(1)", "<script>alert(1)</script>.png", "a b+c%20.png", "dir/x.png", "dir/y/z.png",
    "dir0.png", "é/ü.png", "日本/胸部.png", "😀.png", "\ufffdx.png",
]  # fmt: skip
ONLY_S3 = ["a\nb.png", "../../etc/passwd", "a//b", "/rooted", "./x", "k" * 1000 + "/" + "n" * 15]


class SubfolderStore(LocalStore):
    """A backend from outside of covseg."""


@pytest.fixture
def outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setitem(SCHEMES, "toy", lambda rest, _: SubfolderStore(tmp_path / rest))
    return open_store("toy://below/one")


def test_a_scheme_from_outside_is_one_entry(outside: Store) -> None:
    assert isinstance(outside, SubfolderStore)
    with pytest.raises(UsageError, match="toy:// is not an allowed scheme: wanted file, s3 or a path"):
        open_store("toy://below/one", schemes=("file", "s3"))
    with pytest.raises(UsageError, match="hdfs:// is not an allowed scheme: wanted file, s3, gs, az, toy or a path"):
        open_store("hdfs://bucket")


@pytest.fixture(params=STORES)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "local":
        return LocalStore(tmp_path / "store")
    if request.param == "memory":
        return MemoryStore()
    if request.param == "outside":
        return request.getfixturevalue("outside")
    return open_store(f"{BUCKETS[request.param]}://{request.getfixturevalue(request.param + '_bucket')}/below")


def test_what_is_written_is_read(store: Store) -> None:
    store.write("a/b.png", b"one")
    store.write("a/b.png", b"two")
    assert store.read("a/b.png") == b"two"


def test_a_missing_key_is_file_not_found(store: Store, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        store.read("absent")
    with pytest.raises(FileNotFoundError):
        store.modified("absent")
    with pytest.raises(FileNotFoundError):
        store.download("absent", tmp_path / "out")
    store.delete("absent")


def test_an_empty_store_lists_nothing(store: Store) -> None:
    store.check()
    assert list(entries(store)) == []


def test_create_succeeds_once(store: Store) -> None:
    assert store.create("c/x.json", b"1") is True
    assert store.create("c/x.json", b"1") is False
    assert store.create("c/x.json", b"2") is False
    assert store.read("c/x.json") == b"1"


def test_of_many_creators_at_once_one_wins(store: Store) -> None:
    gate = threading.Barrier(8)

    def create(number: int) -> bool:
        gate.wait()
        return store.create("race", str(number).encode())

    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(create, range(8)))
    assert made.count(True) == 1
    assert store.read("race") == str(made.index(True)).encode()


def test_keys_list_in_utf8_order_with_their_sizes(store: Store) -> None:
    for number, key in enumerate(LEGAL_KEYS):
        store.write(key, b"x" * number)
    listed = list(entries(store))
    assert [entry.key for entry in listed] == sorted(LEGAL_KEYS, key=order)
    assert {entry.key: entry.size for entry in listed} == {key: number for number, key in enumerate(LEGAL_KEYS)}


def test_pages_join_to_the_whole_listing(store: Store) -> None:
    keys = sorted([f"{folder}/{number:02}" for folder in "ab" for number in range(7)], key=order)
    for key in keys:
        store.write(key, b"1")
    for limit in (1, 3, 14, 15):
        found: list[str] = []
        after: str | None = None
        while True:
            page = store.list_page(after, limit)
            found += [entry.key for entry in page.entries]
            after = page.after
            if after is None:
                break
        assert found == keys
    assert [entry.key for entry in store.list_page("a/05").entries] == keys[6:]
    assert [entry.key for entry in store.list_page(None, prefix="b/").entries] == keys[7:]
    assert [entry.key for entry in store.list_page("b/03", prefix="b/0").entries] == keys[11:]


def test_fetch_returns_what_was_planned(store: Store) -> None:
    store.write("film.png", b"pixels")
    (entry,) = entries(store)
    assert store.fetch(entry) == b"pixels"


def test_the_time_of_an_object_is_that_of_its_listing(store: Store) -> None:
    store.write("film.png", b"pixels")
    (entry,) = entries(store)
    assert int(store.modified("film.png")) == int(entry.modified)


def test_an_object_that_was_replaced_is_changed(store: Store) -> None:
    store.write("film.png", b"pixels")
    (entry,) = entries(store)
    store.write("film.png", b"others")
    with pytest.raises(RadiographRefused, match="changed"):
        store.fetch(entry)


def test_an_object_that_is_gone_is_missing(store: Store) -> None:
    store.write("film.png", b"pixels")
    store.write("other.png", b"stays")
    entry, _ = entries(store)
    store.delete("film.png")
    with pytest.raises(RadiographRefused, match="missing"):
        store.fetch(entry)


def test_an_object_that_would_fill_the_memory_is_not_read(store: Store) -> None:
    with pytest.raises(RadiographRefused, match="too_large"):
        store.fetch(Entry("film.png", LARGEST_IMAGE + 1, "x"))


def test_files_travel_up_and_down(store: Store, tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(os.urandom(100_000))
    store.upload(tmp_path / "in", "deep/er/file")
    store.download("deep/er/file", tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == (tmp_path / "in").read_bytes()


def test_a_pickled_store_opens_the_same_objects(store: Store) -> None:
    store.write("x", b"1")
    list(entries(store))
    assert pickle.loads(pickle.dumps(store)).read("x") == b"1"


def test_an_empty_object_is_an_object(store: Store) -> None:
    store.write("empty", b"")
    (entry,) = entries(store)
    assert entry.size == 0
    assert store.fetch(entry) == b""


# --- a folder ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["../x", "/etc/passwd", "a//b", "a/../b", "", ".", "a\0b"])
def test_a_key_cannot_leave_the_folder(tmp_path: Path, key: str) -> None:
    with pytest.raises(UsageError):
        LocalStore(tmp_path).write(key, b"x")


def test_a_folder_lists_regular_files_only(tmp_path: Path) -> None:
    (tmp_path / "real.png").write_bytes(b"1")
    (tmp_path / "link.png").symlink_to(tmp_path / "real.png")
    (tmp_path / "circle").symlink_to(tmp_path)
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    os.mkfifo(tmp_path / "pipe")
    listed = list(entries(LocalStore(tmp_path)))
    assert [entry.key for entry in listed] == ["link.png", "real.png"]
    assert LocalStore(tmp_path).fetch(listed[0]) == b"1"


def test_a_name_that_is_not_utf8_is_listed_and_fetched(tmp_path: Path) -> None:
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/film-\xff.png")).write_bytes(b"1")
    (entry,) = entries(LocalStore(tmp_path))
    assert LocalStore(tmp_path).fetch(entry) == b"1"


def test_half_written_files_are_not_listed_and_can_be_removed(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    store.write("sub/whole", b"1")
    (tmp_path / "sub" / ".covseg-killed").write_bytes(b"half")
    assert [entry.key for entry in entries(store)] == ["sub/whole"]
    assert store.stale_uploads(3600) == []
    (left,) = store.stale_uploads(0)
    store.abort_upload(left)
    assert store.stale_uploads(0) == []


@pytest.mark.parametrize("left", ["no folder", "an empty folder", "a file"])
def test_a_folder_that_was_unmounted_is_unreachable_and_its_images_are_not_missing(tmp_path: Path, left: str) -> None:
    store = LocalStore(tmp_path / "images")
    store.write("below/film.png", b"pixels")
    (entry,) = entries(store)
    (tmp_path / "images").rename(tmp_path / "elsewhere")
    if left != "no folder":
        (tmp_path / "images").mkdir() if left == "an empty folder" else (tmp_path / "images").write_bytes(b"")
    with pytest.raises(StorageUnreachable, match="gone or empty"):
        store.fetch(entry)


def test_an_image_that_became_a_folder_or_lies_below_a_file_is_changed(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    store.write("a/film.png", b"pixels")
    store.write("b/film.png", b"pixels")
    listed = list(entries(store))
    (tmp_path / "a" / "film.png").unlink()
    (tmp_path / "a" / "film.png").mkdir()
    (tmp_path / "b" / "film.png").unlink()
    (tmp_path / "b").rmdir()
    (tmp_path / "b").write_bytes(b"a file")
    for entry in listed:
        with pytest.raises(RadiographRefused, match="changed"):
            store.fetch(entry)


def test_a_disk_without_hard_links_is_refused_with_the_way_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def link(*_: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")  # as exFAT answers

    monkeypatch.setattr(os, "link", link)
    with pytest.raises(UsageError, match=r"without hard links .* --commits URL"):
        check_conditional_writes(LocalStore(tmp_path))


@pytest.fixture
def nobody() -> Iterator[None]:
    """Take root's rights away, where the tests run as root."""
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    yield
    os.seteuid(user)


def test_a_read_only_folder_is_denied(nobody: None) -> None:
    with pytest.raises(StorageDenied, match="not allowed"):
        LocalStore(Path("/usr/covseg-dest")).write("x", b"1")


def test_a_file_that_may_not_be_read_is_refused_and_its_folder_is_denied(nobody: None) -> None:
    with tempfile.TemporaryDirectory() as root:
        store = LocalStore(Path(root))
        store.write("a/closed.png", b"1")
        store.write("a/open.png", b"2")
        closed, opened = entries(store)
        (Path(root) / "a" / "closed.png").chmod(0)
        assert store.fetch(opened) == b"2"
        with pytest.raises(RadiographRefused, match=r"access_denied .*owner or mode"):
            store.fetch(closed)
        (Path(root) / "a").chmod(0o600)
        with pytest.raises(StorageDenied, match="not allowed"):
            store.fetch(opened)
        (Path(root) / "a").chmod(0o700)


@pytest.fixture
def unused_port() -> int:
    return free_port()


KEYS = st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=8)
PATHS = st.lists(st.sampled_from(["a", "b", "a0", "a.", "é"]), min_size=1, max_size=3).map("/".join)


@given(keys=st.sets(KEYS, max_size=30), data=st.data())
@settings(deadline=None, max_examples=50)
def test_a_listing_resumes_behind_any_key(keys: set[str], data: st.DataObject) -> None:
    store = MemoryStore(dict.fromkeys(keys, b"1"))
    after = data.draw(st.sampled_from(sorted(keys)) if keys else st.just("x"))
    expected = [key for key in sorted(keys, key=order) if order(key) > order(after)]
    assert [entry.key for entry in store.list_page(after).entries] == expected


@given(keys=st.sets(PATHS, max_size=12), limit=st.integers(1, 5))
@settings(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_folder_pages_like_a_bucket(tmp_path_factory: pytest.TempPathFactory, keys: set[str], limit: int) -> None:
    keys = {key for key in keys if not any(other.startswith(key + "/") for other in keys)}
    local, memory = LocalStore(tmp_path_factory.mktemp("pages")), MemoryStore()
    for key in keys:
        local.write(key, b"1")
        memory.write(key, b"1")
    for after in (None, *sorted(keys)):
        pages = [[entry.key for entry in store.list_page(after, limit).entries] for store in (local, memory)]
        assert pages[0] == pages[1]


# --- a bucket ---------------------------------------------------------------------------------------


@pytest.mark.service
def test_every_legal_s3_key_is_kept(ceph_bucket: str) -> None:
    store = open_store(f"s3://{ceph_bucket}/deep/er")
    for key in LEGAL_KEYS + ONLY_S3:
        store.write(key, key.encode())
    listed = list(entries(store))
    assert [entry.key for entry in listed] == sorted(LEGAL_KEYS + ONLY_S3, key=order)
    assert all(store.fetch(entry) == entry.key.encode() for entry in listed)


@pytest.mark.service
def test_the_prefix_bounds_what_is_listed(s3_bucket: str) -> None:
    open_store(f"s3://{s3_bucket}/pre").write("in", b"1")
    open_store(f"s3://{s3_bucket}/prefix").write("out", b"1")
    open_store(f"s3://{s3_bucket}").write("pre/", b"")
    assert [entry.key for entry in entries(open_store(f"s3://{s3_bucket}/pre/"))] == ["in"]


@pytest.mark.service
def test_a_large_file_goes_up_in_parts_and_unfinished_parts_are_found(ceph_bucket: str, tmp_path: Path) -> None:
    from covseg.storage.s3 import S3Store

    store = S3Store(ceph_bucket, "below")
    (tmp_path / "in").write_bytes(os.urandom(40 * 2**20))
    store.upload(tmp_path / "in", "large")
    (entry,) = entries(store)
    assert entry.etag.endswith("-3")  # in parts: no MD5, and no check against one
    assert hashlib.md5(store.fetch(entry)).digest() == hashlib.md5((tmp_path / "in").read_bytes()).digest()
    store.download("large", tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == (tmp_path / "in").read_bytes()
    store._run(lambda s3: s3.create_multipart_upload(Bucket=ceph_bucket, Key="below/dead upload"))
    assert store.stale_uploads(3600) == []
    (left,) = store.stale_uploads(-5)
    store.abort_upload(left)
    store.abort_upload(left)
    assert store.stale_uploads(-5) == []


@pytest.fixture
def overwriting_server(monkeypatch: pytest.MonkeyPatch, unused_port: int) -> Iterator[None]:
    """An S3 server that drops If-None-Match, as older ones do."""
    program = (
        "import sys; from moto.server import DomainDispatcherApplication, create_backend_app\n"
        "from werkzeug.serving import run_simple\n"
        "app = DomainDispatcherApplication(create_backend_app)\n"
        "def deaf(environ, respond): environ.pop('HTTP_IF_NONE_MATCH', None); return app(environ, respond)\n"
        "run_simple('127.0.0.1', int(sys.argv[1]), deaf, threaded=True)"
    )
    command = [sys.executable, "-c", program, str(unused_port)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.setenv(name, "for-tests")
        monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{unused_port}")
        await_port(unused_port, process)
        yield
        process.terminate()


@pytest.mark.service
def test_a_server_without_create_only_writes_is_refused_by_the_probe(overwriting_server: None) -> None:
    with pytest.raises(UsageError, match="--commits URL"):
        check_conditional_writes(open_store(f"s3://{make_bucket()}"))


@pytest.mark.service
def test_servers_with_create_only_writes_pass_the_probe(s3_bucket: str) -> None:
    check_conditional_writes(open_store(f"s3://{s3_bucket}"))


@pytest.mark.service
def test_wrong_credentials_are_denied_and_not_told(ceph_bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("AWS_SECRET_ACCESS_KEY", "canary-secret"), ("AWS_ACCESS_KEY_ID", "AKCANARY")):
        monkeypatch.setenv(name, value)
        with pytest.raises(StorageDenied, match="refused our credentials") as caught:
            open_store(f"s3://{ceph_bucket}").check()
        assert "canary" not in "".join(traceback.format_exception(caught.value)).lower()


@pytest.mark.service
def test_a_quota_that_is_used_up_is_storage_full(ceph_bucket: str, ceph_server: dict[str, str]) -> None:
    store = open_store(f"s3://{ceph_bucket}")
    store.write("first", b"1")
    admin = ["radosgw-admin", "-c", ceph_server["CEPH_CONF"], "-n", "client.rgw", "quota"]
    bucket = ["--bucket", ceph_bucket, "--quota-scope=bucket"]
    for command in (["set", "--max-objects=1"], ["enable"]):
        subprocess.run([*admin, command[0], *bucket, *command[1:]], check=True, capture_output=True, timeout=60)
    with pytest.raises(StorageFull, match="free some room"):
        store.create("second", b"1")


@pytest.mark.service
def test_an_empty_page_does_not_end_a_listing(s3_bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from covseg.storage.s3 import S3Store

    store = S3Store(s3_bucket)
    store.write("film.png", b"1")
    asked, run = [], store._run

    def first_page_empty(call: Any) -> Any:
        """Let the server answer; put an empty page before its answer."""
        client = SimpleNamespace(list_objects_v2=lambda **given: asked.append(given))
        call(client)
        if len(asked) == 1:
            return {"IsTruncated": True, "NextContinuationToken": "next"}
        return run(lambda s3: s3.list_objects_v2(Bucket=s3_bucket))

    monkeypatch.setattr(store, "_run", first_page_empty)
    assert [entry.key for entry in entries(store)] == ["film.png"]
    assert asked[1]["ContinuationToken"] == "next"


@pytest.mark.service
def test_an_object_of_an_archive_class_is_told_apart_from_wrong_credentials(s3_bucket: str) -> None:
    from covseg.storage.s3 import S3Store

    store = S3Store(s3_bucket)
    store._run(lambda s3: s3.put_object(Bucket=s3_bucket, Key="film.png", Body=b"1", StorageClass="GLACIER"))
    (entry,) = entries(store)
    with pytest.raises(StorageDenied, match=r"archive storage class .* restore"):
        store.fetch(entry)


@pytest.mark.service
def test_a_large_image_has_a_longer_deadline(s3_bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from covseg.storage.s3 import S3Store

    store = S3Store(s3_bucket)
    store.write("film.png", b"1" * 2**21)
    (entry,) = entries(store)
    given, run = [], store._run
    monkeypatch.setattr(store, "_run", lambda call, deadline_s: given.append(deadline_s) or run(call, deadline_s))
    assert len(store.fetch(entry)) == 2**21
    assert given == [store.deadline_s + 2]


@pytest.mark.service
def test_a_bucket_that_is_not_there_is_named(s3_server: str) -> None:
    store = open_store("s3://no-such-bucket-here")
    for call in (store.check, lambda: list(entries(store)), lambda: store.write("x", b"1"), lambda: store.read("x")):
        with pytest.raises((StorageUnreachable, FileNotFoundError), match="no such bucket"):
            call()


def test_a_port_where_nobody_listens_is_unreachable_by_the_deadline(
    monkeypatch: pytest.MonkeyPatch, unused_port: int
) -> None:
    from covseg.storage import s3

    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "canary-secret")
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{unused_port}")
    monkeypatch.setattr(s3, "CHECK_DEADLINE_S", 2.0)
    with pytest.raises(StorageUnreachable, match="check endpoint and network") as caught:
        open_store("s3://bucket").check()
    assert "canary" not in str(caught.value)


def test_no_credentials_at_all_are_denied(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(StorageDenied, match="no usable credentials"):
        open_store("s3://bucket").check()


# --- URLs -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("simplecache::s3://bucket/x", "chained"),
        ("http://host/x", "not an allowed scheme"),
        ("hdfs://bucket/x", "not an allowed scheme"),
        ("az://account:canary-secret@box/x", "credentials"),
        ("gs://bucket/a//b", "joined by single slashes"),
        ("memory://x", "not an allowed scheme"),
        ("file://host/x", "another machine"),
        ("s3://AK:canary-secret@bucket/x", "credentials"),
        ("s3:///x", "not a bucket name"),
        ("s3://-x/y", "not a bucket name"),
    ],
)
def test_a_url_outside_the_allow_list_is_refused(url: str, said: str) -> None:
    with pytest.raises(UsageError, match=said) as caught:
        open_store(url)
    assert "canary" not in str(caught.value)


def test_only_listed_buckets_open_when_a_list_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COVSEG_BUCKETS", "ours, ours-too")
    assert open_store("s3://ours-too/x").url == "s3://ours-too/x"
    with pytest.raises(UsageError, match="not among the allowed"):
        open_store("s3://theirs/x")


def test_paths_and_file_urls_open_folders(tmp_path: Path) -> None:
    assert open_store(tmp_path).url == open_store(f"file://{tmp_path}").url == open_store(str(tmp_path)).url
    assert open_store("memory://shared", ("memory",)) is open_store("memory://shared", ("memory",))


@pytest.mark.parametrize(
    ("one", "other", "answer"),
    [("s3://bbb/p", "s3://bbb/p/q", True), ("s3://bbb/p/q", "s3://bbb/p/", True), ("s3://bbb/p", "s3://bbb/pq", False),
     ("s3://bbb", "s3://bbb/p", True), ("s3://bbb", "s3://ccc", False), ("/a/b", "/a/b/../b/c", True)],
)  # fmt: skip
def test_stores_that_lie_inside_each_other_are_found(one: str, other: str, answer: bool) -> None:
    assert overlap(open_store(one), open_store(other)) is answer
