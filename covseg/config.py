"""Configuration that decides what is computed, and its digest.

Everything that changes a number in the table is in `ScoringConfig`; its digest stands in every row.
"""

from __future__ import annotations

import hashlib
import os
import secrets
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from covseg.errors import UsageError

SHARD_SIZE = 256  # films a shard, unless a run says otherwise


class ScoringConfig(BaseModel):
    """What is computed for one film; resolved once, before the first film.

    Parameters
    ----------
    model_id, weights_sha256 : str
        The model.
    card : dict
        Thresholds, flag limits and gate limits of the model's JSON.
    backend : str
        Name, version, device kind and precision.
    batch : int
        Films a forward pass.
    code_version : str
        Of covseg.
    """

    model_config = ConfigDict(frozen=True)

    model_id: str
    weights_sha256: str
    card: dict[str, Any]
    backend: str
    batch: int
    code_version: str

    @property
    def digest(self) -> str:
        """SHA-256 of the canonical JSON."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()


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
    """Return the secret that names inputs.

    From ``COVSEG_PROJECT_KEY``, or from a file of mode 0600 in the user's configuration folder,
    made on the first run.

    Raises
    ------
    UsageError
        When the file can be read by others.
    """
    if from_environment := os.environ.get("COVSEG_PROJECT_KEY"):
        return from_environment.encode()
    home = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    path = home / "covseg" / "project.key"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "w") as file:
            file.write(secrets.token_hex(32))
    if path.stat().st_mode & 0o077:
        raise UsageError(f"{path} can be read by others: run chmod 600 on it, or set COVSEG_PROJECT_KEY")
    return path.read_bytes().strip()
