"""A folder that is a mount may lack what a DEST needs: each property is broken once, and the others are left."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from covseg.errors import UsageError
from covseg.settings.score import ScoreSettings
from covseg.storage import LocalStore
from covseg.storage.conditional_writes import refuse_overwriting, refuse_unfit
from workers import scoring

Patch = pytest.MonkeyPatch
PAUSE_S = 0.02


def link_overwrites(patch: Patch) -> None:
    patch.setattr(os, "link", shutil.copyfile)


def link_looks_first(patch: Patch) -> None:
    """Two that look at the same time both create."""

    def link(source: Path, target: Path) -> None:
        if target.exists():
            raise FileExistsError
        time.sleep(PAUSE_S)
        shutil.copyfile(source, target)

    patch.setattr(os, "link", link)


def rename_removes_first(patch: Patch) -> None:
    def replace(self: Path, target: Path) -> None:
        target.unlink(missing_ok=True)
        time.sleep(PAUSE_S)
        self.rename(target)

    patch.setattr(Path, "replace", replace)


def rename_copies(patch: Patch) -> None:
    def replace(self: Path, target: Path) -> None:
        data = self.read_bytes()
        with target.open("wb", buffering=0) as file:
            for half in (data[:50_000], data[50_000:]):
                file.write(half)
                time.sleep(PAUSE_S)
        self.unlink()

    patch.setattr(Path, "replace", replace)


def reads_are_cached(patch: Patch) -> None:
    kept: dict[Path, bytes] = {}
    read = Path.read_bytes
    patch.setattr(Path, "read_bytes", lambda self: kept.setdefault(self, read(self)))


def listings_are_cached(patch: Patch) -> None:
    patch.setattr("covseg.storage.local._children", lambda folder: iter(()))


def removed_files_stay(patch: Patch) -> None:
    unlink = Path.unlink
    patch.setattr(Path, "unlink", lambda self, missing_ok=False: self.name[0] != "." or unlink(self, missing_ok))


@pytest.mark.parametrize("broken", [link_overwrites, link_looks_first])
def test_a_mount_on_which_two_can_create_a_file_is_refused(
    tmp_path: Path, monkeypatch: Patch, broken: Callable[[Patch], None]
) -> None:
    broken(monkeypatch)
    with pytest.raises(UsageError, match=r"two runs could both count.*another place"):
        refuse_overwriting(LocalStore(tmp_path), "Give another place")


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        (rename_removes_first, "gone, or there in part"),
        (rename_copies, "gone, or there in part"),
        (reads_are_cached, "old content"),
        (listings_are_cached, "not there at once"),
        (removed_files_stay, "still there"),
    ],
)
def test_a_mount_that_shows_what_was_not_written_is_refused(
    tmp_path: Path, monkeypatch: Patch, broken: Callable[[Patch], None], reason: str
) -> None:
    broken(monkeypatch)
    with pytest.raises(UsageError, match=reason):
        refuse_unfit(LocalStore(tmp_path))


def test_a_disk_of_this_machine_passes_and_is_left_clean(tmp_path: Path) -> None:
    refuse_overwriting(LocalStore(tmp_path), "")
    refuse_unfit(LocalStore(tmp_path))
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_a_file_server_that_syncs_no_folders_can_keep_commits(tmp_path: Path, monkeypatch: Patch) -> None:
    sync = os.fsync

    def fsync(handle: int) -> None:
        if Path(f"/proc/self/fd/{handle}").resolve().is_dir():
            raise OSError(22, "Invalid argument")
        sync(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    assert LocalStore(tmp_path).create("x", b"1")


def test_a_run_into_such_a_mount_ends_before_its_first_image(tmp_path: Path, monkeypatch: Patch) -> None:
    (tmp_path / "in").mkdir()
    rename_removes_first(monkeypatch)
    settings = ScoreSettings(source=str(tmp_path / "in"), dest=str(tmp_path / "out"))
    with pytest.raises(UsageError, match="cannot keep results"):
        scoring._stores(settings)
    assert not (tmp_path / "out" / "run.json").exists()
