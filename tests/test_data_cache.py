"""A labelled set in a bucket comes to a machine once, whole, and follows the bucket."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from covseg.data import open_set
from covseg.data.cache import INDEX, local_copy
from covseg.errors import UsageError
from covseg.storage import Store, open_store
from covseg.synthetic.phantom.writer import write_dataset

pytestmark = pytest.mark.service


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("labelled")
    write_dataset(root, {"Train": 8, "Val": 4, "Test": 4}, size=64)
    return root


@pytest.fixture
def bucket(s3_bucket: str, labelled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setenv("COVSEG_CACHE", str(tmp_path / "cache"))
    store = open_store(f"s3://{s3_bucket}/set")
    for path in labelled.rglob("*.png"):
        store.upload(path, path.relative_to(labelled).as_posix())
    return store


def files(root: Path) -> dict[str, bytes]:
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*.png")}


def test_a_folder_is_its_own_copy(labelled: Path) -> None:
    assert local_copy(labelled) == labelled
    assert local_copy(f"file://{labelled}") == labelled


def test_only_the_wanted_splits_are_fetched_and_every_byte_is_right(bucket: Store, labelled: Path) -> None:
    root = local_copy(bucket.url, ("train", "Val"))
    assert files(root) == {key: data for key, data in files(labelled).items() if not key.startswith("Test")}
    assert len(open_set(root, "Train").images) == 8
    assert local_copy(bucket.url, ("Test",)) == root
    assert files(root) == files(labelled)


def test_what_changes_in_the_bucket_changes_here_and_nothing_else_is_fetched(bucket: Store) -> None:
    root = local_copy(bucket.url)
    keys = sorted(files(root))
    before = {key: (root / key).stat().st_mtime_ns for key in keys}
    bucket.write(keys[0], b"another")
    bucket.delete(keys[1])
    local_copy(bucket.url)
    assert (root / keys[0]).read_bytes() == b"another"
    assert not (root / keys[1]).exists()
    assert {key: (root / key).stat().st_mtime_ns for key in keys[2:]} == {key: before[key] for key in keys[2:]}


def test_a_file_that_was_cut_here_is_fetched_again(bucket: Store, labelled: Path) -> None:
    root = local_copy(bucket.url)
    key = sorted(files(root))[0]
    (root / key).write_bytes(b"half")
    local_copy(bucket.url)
    assert (root / key).read_bytes() == (labelled / key).read_bytes()


def test_several_processes_fetch_each_file_once(bucket: Store, labelled: Path, tmp_path: Path) -> None:
    program = "import sys, logging; logging.basicConfig(level='INFO'); from covseg.data.cache import local_copy; "
    words = [sys.executable, "-c", program + "print(local_copy(sys.argv[1]))", bucket.url]
    ranks = [subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(3)]
    said = [rank.communicate(timeout=200) for rank in ranks]
    assert [rank.returncode for rank in ranks] == [0, 0, 0], said
    assert sum("fetching 36 of 36 files" in err for _, err in said) == 1
    assert len({out for out, _ in said}) == 1
    assert len(files(Path(said[0][0].strip()))) == 36


def test_a_generic_set_brings_the_rows_of_its_splits(
    s3_bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COVSEG_CACHE", str(tmp_path))
    store = open_store(f"s3://{s3_bucket}/own")
    store.write("labels.csv", b"film,stratum,split\na.png,Normal,Train\nb.png,Normal,Val\nc.png,Normal,Test\n")
    for key in ("images/a.png", "images/b.png", "images/c.png", "masks/a.png", "masks/b.png", "masks/c.png"):
        store.write(key, key.encode())
    root = local_copy(store.url)
    assert set(files(root)) == {"images/a.png", "images/b.png", "masks/a.png", "masks/b.png"}
    assert (root / "labels.csv").is_file() and (root / INDEX).is_file()


def test_a_bucket_without_the_split_is_refused(s3_bucket: str) -> None:
    with pytest.raises(UsageError, match="has no file of Train, Val"):
        local_copy(f"s3://{s3_bucket}/nothing")
