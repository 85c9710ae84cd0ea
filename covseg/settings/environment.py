"""What this machine says: the version, the cache folder, and the secret that names inputs."""

from __future__ import annotations

import contextlib
import os
import secrets
import tempfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from covseg.errors import UsageError

KEY_BYTES = 16  # least length of a project key: names of images are guessable, the key must not be
# Said before anything heavy is imported: no library of ours calls home. Ray's dashboard reports even that it may not
# report, and asks clouds' metadata servers by `requests` where it runs; `requests` knows proxies for one host.
QUIET = {
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_USAGE_STATS_REPORT_URL": "none",
    "http://169.254.169.254_proxy": "http://127.0.0.1:9",
    "http://metadata.google.internal_proxy": "http://127.0.0.1:9",
}


def code_version() -> str:
    """Return covseg's version, or ``unknown`` when it runs from a bare tree."""
    try:
        return version("covseg")
    except PackageNotFoundError:
        return "unknown"


def cache_folder() -> Path:
    """Return where what can be made or fetched again lies: ``COVSEG_CACHE``, or the user's cache folder."""
    home = os.environ.get("COVSEG_CACHE") or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "covseg"
    return Path(home)


def project_key() -> bytes:
    """Return the secret that names inputs, at least `KEY_BYTES` long.

    From ``COVSEG_PROJECT_KEY``, or from a file of mode 0600 in the user's configuration folder,
    made on the first run.

    Raises
    ------
    UsageError
        When the file can be read by others, or the key is too short to keep names secret.
    """
    if from_environment := os.environ.get("COVSEG_PROJECT_KEY"):
        return _long_enough(from_environment.encode(), "COVSEG_PROJECT_KEY")
    home = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    path = home / "covseg" / "project.key"
    if not path.exists():
        _make_key(path)
    if path.stat().st_mode & 0o077:
        raise UsageError(f"{path} can be read by others: run chmod 600 on it, or set COVSEG_PROJECT_KEY")
    return _long_enough(path.read_bytes().strip(), str(path))


def _make_key(path: Path) -> None:
    """Put a whole new key there at once, readable by its owner alone; one that another process made stays."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    handle, staged = tempfile.mkstemp(prefix=".key-", dir=path.parent)
    try:
        with os.fdopen(handle, "w") as file:
            file.write(secrets.token_hex(32))
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(FileExistsError):
            os.link(staged, path)
    finally:
        Path(staged).unlink()


def _long_enough(key: bytes, where: str) -> bytes:
    if len(key) < KEY_BYTES:
        raise UsageError(
            f"the project key in {where} has {len(key)} bytes, wanted at least {KEY_BYTES}: restore the one that "
            "earlier results were made with; without any, remove it and the next run makes one"
        )
    return key
