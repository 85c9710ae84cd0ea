"""A version of a model: which files of a folder it holds, and the record that completes it.

In: a model folder. Out: its files as bytes, each of a kind that cannot run code of its own, and a `Version` that names
them by digest. What lies in a registry was written by others: a record is believed only when it is whole.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from safetensors import SafetensorError, safe_open

from covseg.errors import ModelRefused
from covseg.model_folder.export import open_session
from covseg.model_folder.folder import CONFIG, GRAPH, ModelFolder
from covseg.model_folder.test_uses import LEDGER
from covseg.settings.faults import first_fault

PAGE = "card.md"
FILE_NAME = r"^(graph\.onnx|[A-Za-z0-9][A-Za-z0-9._-]{0,99}\.(safetensors|json|md))$"
_SHA256 = r"^[0-9a-f]{64}$"
_PICKLES = {".pt", ".pth", ".bin", ".ckpt", ".pkl", ".pickle", ".npy", ".npz", ".joblib"}
MADE_FROM = "covseg.json sha256 "  # a card says so of the JSON it was made from


class Record(BaseModel):
    """A JSON object of a registry; unknown fields are refused, because nobody knows what they promise."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    format: Literal[1] = 1

    def to_bytes(self) -> bytes:
        """Return the JSON object, one field a line."""
        return (self.model_dump_json(indent=1) + "\n").encode()


R = TypeVar("R", bound=Record)


class File(BaseModel):
    """One file of a version."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=FILE_NAME)
    sha256: str = Field(pattern=_SHA256)
    size: int = Field(ge=0, description="bytes")


class Version(Record):
    """The record that completes a version, written last."""

    number: int = Field(ge=1)
    content: str = Field(pattern=_SHA256, description="digest over the names and digests of all files")
    model_id: str = Field(description="the id in covseg.json")
    files: tuple[File, ...] = Field(min_length=2)
    pushed_at: str = Field(description="by the clock of whoever pushed; orders nothing")

    @model_validator(mode="after")
    def _whole(self) -> Version:
        if len({file.name for file in self.files}) != len(self.files) or content_of(self.files) != self.content:
            raise ValueError("the files are not those that its content digest was made of")
        return self

    @property
    def tag(self) -> str:
        """``v3``."""
        return f"v{self.number}"

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)


def content_of(files: Iterable[File]) -> str:
    """Return the digest that names these files, whatever their order."""
    lines = sorted(f"{file.name} {file.sha256} {file.size}" for file in files)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def parse_record(kind: type[R], data: bytes, where: str) -> R:
    """Read a record back.

    Raises
    ------
    ModelRefused
        When it is not one, or of a later format.
    """
    try:
        return kind.model_validate_json(data)
    except ValidationError as error:
        fault = first_fault(error, "the record")
        raise ModelRefused(f"{where} cannot be believed: {fault}; nothing was opened") from error


def files_of(folder: ModelFolder) -> dict[str, bytes]:
    """Read what a version of this folder holds.

    The record of uses of the Test split stays behind: it goes on growing, and the card gives its count.

    Raises
    ------
    ModelRefused
        When the folder holds anything but safetensors, JSON, Markdown and the graph that its JSON names, or a graph
        that does not open on its weights alone; or has no card, or one of other settings.
    """
    found = {path.name: _read(path) for path in sorted(folder.path.iterdir()) if path.name != LEDGER}
    if PAGE not in found:
        raise ModelRefused(f"{folder.path} has no {PAGE}: run covseg models card {folder.path} --evaluation DIR")
    _refuse_stale(found[PAGE].decode(), found[CONFIG], folder.path)
    if folder.config.graph_sha256 is not None:
        open_session(folder)
    elif GRAPH in found:
        raise ModelRefused(f"{folder.path / GRAPH} is named by no {CONFIG}: it may be of other weights; take it out")
    return found


def describe(files: dict[str, bytes]) -> tuple[File, ...]:
    """Return the files as a version names them."""
    return tuple(
        File(name=name, sha256=hashlib.sha256(data).hexdigest(), size=len(data)) for name, data in files.items()
    )


def _read(path: Path) -> bytes:
    if reason := _why_not(path):
        raise ModelRefused(f"{path} cannot go into a registry: {reason}; take it out of the folder")
    data = path.read_bytes()
    try:
        if path.suffix == ".safetensors":
            with safe_open(path, "np"):
                pass
        elif path.suffix == ".json":
            json.loads(data)
        elif path.suffix == ".md":
            data.decode()
    except (SafetensorError, ValueError) as error:
        raise ModelRefused(f"{path} is not what its name says: {str(error)[:200]}; mend it or take it out") from error
    return data


def _why_not(path: Path) -> str | None:
    """Say why a path is not copied; None when it is."""
    if path.is_symlink():
        return "it is a link, and what it leads to may change"
    if path.is_dir():
        return "it is a folder, and a model folder has none"
    if not path.is_file():
        return "it is no regular file"
    if path.suffix.lower() in _PICKLES:
        return "such files can hold pickles, which run code when they are loaded; keep weights as safetensors"
    if not re.fullmatch(FILE_NAME, path.name):
        return f"only plainly named .safetensors, .json and .md files and {GRAPH} are kept"
    return None


def _refuse_stale(page: str, config: bytes, folder: Path) -> None:
    """Refuse a card that was made from another ``covseg.json``; one that names none is its author's own."""
    named = re.search(MADE_FROM + r"([0-9a-f]{64})", page)
    if named and named[1] != hashlib.sha256(config).hexdigest():
        raise ModelRefused(
            f"{folder / PAGE} was made from another {CONFIG}: its numbers or thresholds are old; "
            f"run covseg models card {folder}"
        )
