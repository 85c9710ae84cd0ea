"""A folder as a store."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from covseg.errors import RadiographRefused, Reason, Stage, StorageDenied, StorageFull, StorageUnreachable, UsageError
from covseg.records import Entry
from covseg.storage.protocol import Page, missing, refuse_changed, refuse_large, walk

_STAGED = ".covseg-"


class LocalStore:
    """A folder. Keys are paths below it, with forward slashes.

    Regular files are listed, those behind a link too; links to folders are not walked (they may turn
    in circles), and sockets, pipes and devices are not images. The folder is made at the first write.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.url = str(root.resolve())
        self._walking: tuple[str, str | None, Iterator[tuple[str, Path]]] | None = None

    def __getstate__(self) -> dict[str, object]:
        """Leave a listing under way behind."""
        return {**self.__dict__, "_walking": None}

    def check(self) -> None:
        """Raise when the folder exists and cannot be listed."""
        with _storage_errors(self.url), contextlib.suppress(FileNotFoundError):
            os.scandir(self.root).close()

    def list_page(self, after: str | None = None, limit: int = 1000, prefix: str = "") -> Page:
        """List by walking the folder in key order; a folder that is not there is empty."""
        listed: list[Entry] = []
        walking = self._walk_from(prefix, after)
        with _storage_errors(self.url):
            for key, path in walking:
                with contextlib.suppress(FileNotFoundError):  # gone since the folder was scanned
                    state = path.stat()
                    listed.append(Entry(key, state.st_size, _etag(state), state.st_mtime))
                if len(listed) == limit:
                    self._walking = (prefix, key, walking)
                    return Page(listed, key)
        return Page(listed, None)

    def _walk_from(self, prefix: str, after: str | None) -> Iterator[tuple[str, Path]]:
        """Go on with the walk that the last page broke off: scanning anew costs the square of the folder."""
        walking, self._walking = self._walking, None
        if walking and walking[:2] == (prefix, after):
            return walking[2]
        return walk(self._children, prefix, after)

    def _children(self, folder: str) -> Iterator[tuple[str, Path]]:
        return ((folder + name, self.root / folder / name) for name in _children(self.root / folder))

    def path(self, key: str) -> Path:
        """Return where `key` lies; UsageError when it would leave the folder."""
        if any(part in ("", ".", "..") for part in key.split("/")) or "\0" in key:
            raise UsageError(f"key {key!r} cannot be a path below a folder: wanted names joined by single slashes")
        return self.root / key

    def read(self, key: str) -> bytes:
        """Return the file's bytes."""
        with _storage_errors(self.url):
            return self.path(key).read_bytes()

    def fetch(self, entry: Entry) -> bytes:
        """Return the file's bytes, if size and time are the planned ones before and after.

        Raises
        ------
        StorageUnreachable
            When the whole folder is gone or empty, as one is that is no longer mounted: no image is ``missing`` for it.
        """
        refuse_large(entry)
        with _storage_errors(self.url):
            try:
                with self.path(entry.key).open("rb") as file:
                    refuse_changed(entry, _etag(os.fstat(file.fileno())))
                    data = file.read()
                    refuse_changed(entry, _etag(os.fstat(file.fileno())))
            except FileNotFoundError:
                self._refuse_empty()
                raise missing() from None
            except PermissionError:
                self.path(entry.key).stat()  # denied as well where it is the folder that is closed to us
                detail = "the file's owner or mode does not let us read it, those of its folder do: change them"
                raise RadiographRefused(Reason.ACCESS_DENIED, Stage.FETCH, detail) from None
            except (IsADirectoryError, NotADirectoryError):
                self._refuse_empty()
                detail = "planned as a file, now a folder or below a file: plan again to score what lies there"
                raise RadiographRefused(Reason.CHANGED, Stage.FETCH, detail) from None
        return data

    def _refuse_empty(self) -> None:
        """Raise when nothing at all is left of a folder that was listed with images in it."""
        if not self.root.is_dir() or not any(self.root.iterdir()):
            raise StorageUnreachable(
                f"{self.url} is gone or empty, but held images when it was listed: mount it again, then run the same "
                "command again; if its images were removed on purpose, put any file there and they become missing"
            )

    def write(self, key: str, data: bytes) -> None:
        """Replace atomically: a temporary file beside it, then a rename."""
        with self._staged(key) as (file, staged):
            file.write(data)
            file.close()
            staged.replace(self.path(key))

    def create(self, key: str, data: bytes) -> bool:
        """Create by a hard link to a finished, synced file: never a half-written one."""
        with self._staged(key) as (file, staged):
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
            file.close()
            try:
                os.link(staged, self.path(key))
            except FileExistsError:
                return False
            except OSError as error:
                if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.ENOSYS):
                    raise
                raise UsageError(
                    f"{self.url} lies on a disk without hard links ({error.strerror}), which create-only records need: "
                    "give a folder or bucket that has such writes, or covseg score one with --commits URL"
                ) from error
            _sync_folder(staged.parent)
        return True

    def modified(self, key: str) -> float:
        """Return the file's time."""
        with _storage_errors(self.url):
            return self.path(key).stat().st_mtime

    def delete(self, key: str) -> None:
        """Remove the file."""
        with _storage_errors(self.url):
            self.path(key).unlink(missing_ok=True)

    def upload(self, path: Path, key: str) -> None:
        """Copy the file beside its place, then rename."""
        with self._staged(key) as (file, staged):
            with path.open("rb") as content:
                shutil.copyfileobj(content, file)
            file.close()
            staged.replace(self.path(key))

    def download(self, key: str, path: Path) -> None:
        """Copy the file."""
        with _storage_errors(self.url):
            shutil.copyfile(self.path(key), path)

    def stale_uploads(self, older_than_s: float) -> list[str]:
        """Name temporary files that a killed write left."""
        before = time.time() - older_than_s
        with _storage_errors(self.url):
            left: list[str] = []
            for path in sorted(self.root.rglob(f"{_STAGED}*")):
                with contextlib.suppress(FileNotFoundError):  # renamed meanwhile by the write that it belongs to
                    if path.lstat().st_mtime <= before:
                        left.append(path.relative_to(self.root).as_posix())
            return left

    def abort_upload(self, name: str) -> None:
        """Remove the temporary file."""
        self.delete(name)

    @contextlib.contextmanager
    def _staged(self, key: str) -> Iterator[tuple[BinaryIO, Path]]:
        path = self.path(key)
        with _storage_errors(self.url):
            handle, name = _temporary(path.parent)
            staged = Path(name)
            try:
                with os.fdopen(handle, "wb") as file:
                    os.fchmod(file.fileno(), 0o644)
                    yield file, staged
            finally:
                staged.unlink(missing_ok=True)


def _temporary(folder: Path) -> tuple[int, str]:
    """Open a new temporary file in a folder, which is made where it is not there."""
    try:
        return tempfile.mkstemp(prefix=_STAGED, dir=folder)
    except FileNotFoundError:
        folder.mkdir(parents=True, exist_ok=True)
        return tempfile.mkstemp(prefix=_STAGED, dir=folder)


def _children(folder: Path) -> Iterator[str]:
    """Yield the names of folders, with a slash, and of regular files."""
    with contextlib.suppress(FileNotFoundError), os.scandir(folder) as scan:
        for child in scan:
            if child.is_dir(follow_symlinks=False):
                yield child.name + "/"
            elif _is_file(child) and not child.name.startswith(_STAGED):
                yield child.name


def _is_file(child: os.DirEntry[str]) -> bool:
    """Tell whether it is, or leads to, a regular file; a link that leads to itself is one that leads nowhere."""
    try:
        return child.is_file()
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        return False


def _etag(state: os.stat_result) -> str:
    return f"{state.st_size}-{state.st_mtime_ns}"


def _sync_folder(folder: Path) -> None:
    """Make a new name durable, not only its content."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # a file server that syncs no folders
            raise
    finally:
        os.close(handle)


@contextlib.contextmanager
def _storage_errors(url: str) -> Iterator[None]:
    """Turn an operating system error into the error tree; a missing key stays FileNotFoundError."""
    try:
        yield
    except FileNotFoundError:
        raise
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StorageFull(f"no space left under {url}: free some, then run the same command again") from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise StorageDenied(f"not allowed to use {url} ({error.strerror}): check owner and mode") from error
        raise StorageUnreachable(f"cannot use {url}: {error.strerror}; check that path, or name another") from error
