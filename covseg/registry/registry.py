"""A registry of models: a prefix in any store, immutable versions, two aliases.

One registry is laid out so, all of it create-only but the aliases::

    <name>/content/<digest>/weights.safetensors covseg.json gate.safetensors card.md
    <name>/versions/v3.json               last: version 3 exists, and has these files     (`Version`)
    <name>/history/champion/00000002.json who became champion; the highest number counts  (`Promotion`)
    <name>/aliases/champion.json          the same again, for people and other programs

In: model folders and references. Out: versions, and folders in the local cache whose every digest was
checked. Only safetensors, JSON and Markdown are copied; nothing is unpickled.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import NamedTuple

from covseg.errors import ModelRefused, UsageError
from covseg.model_folder.folder import SHIPPED, ModelFolder, open_folder
from covseg.registry import aliases
from covseg.registry.aliases import Promotion
from covseg.registry.objects import complete, get, put, read_version, tags, versions
from covseg.registry.references import ALIASES, Reference, check_name, default_registry, is_reference, parse
from covseg.registry.versions import File, Version, content_of, describe, files_of
from covseg.settings.environment import cache_folder
from covseg.storage import SCHEMES, LocalStore, Store, open_store
from covseg.storage.conditional_writes import refuse_overwriting

WAY_OUT = "Keep the registry in a store that honours them"


def open_model(ref: str | Path = "default", *, input_filter: bool = True) -> ModelFolder:
    """Open a model by any of its names, its weights checked against the digest that its JSON names.

    Parameters
    ----------
    ref : str or Path
        ``default`` or ``benchmark``, the path of a model folder, or ``[REGISTRY/]NAME@TAG``, which is pulled into the
        cache first.
    input_filter : bool
        False leaves the input filter unread and off the card, for whoever fits another one.

    Raises
    ------
    ModelRefused
        When a file is missing, the JSON has unknown or wrong fields, or a digest differs.
    """
    if isinstance(ref, Path) or not is_reference(ref):
        return open_folder(ref, input_filter=input_filter)
    folder, reference = pull(ref)
    return open_folder(folder, input_filter=input_filter).model_copy(update={"reference": reference})


class Pulled(NamedTuple):
    """A folder that holds a version, and the reference that means this version for ever."""

    folder: Path
    reference: str


class Pushed(NamedTuple):
    """A version, and whether this push made it; False when the content was there already."""

    version: Version
    made: bool


def open_registry(url: str | None = None) -> Store:
    """Open a registry; no connection is made.

    Parameters
    ----------
    url : str or None
        Folder, or ``s3://bucket/prefix``; None takes ``COVSEG_REGISTRY``.

    Raises
    ------
    UsageError
        When none is named, or its scheme is not allowed or not installed.
    """
    try:
        return open_store(url or default_registry(), SCHEMES)
    except ModuleNotFoundError as error:
        raise UsageError(f"a registry in a bucket needs {error.name}: pip install 'covseg[s3]'") from error


def push(ref: str | Path, registry: Store, name: str, *, dry_run: bool = False) -> Pushed:
    """Make a model folder a version: its files first, the record that completes it last.

    Parameters
    ----------
    ref : str or Path
        Anything that `open_model` takes.
    dry_run : bool
        Only say which version it is, or would become.

    Raises
    ------
    ModelRefused
        When the folder cannot be trusted, or holds what is not copied.
    UsageError
        When the store overwrites what must be immutable.
    """
    check_name(name)
    folder = open_model(ref)
    files = files_of(folder)
    named, known = describe(files), versions(registry, name)
    draft = Version(
        number=known[-1].number + 1 if known else 1,
        content=content_of(named), model_id=folder.config.id, files=named, pushed_at=aliases.now(),
    )  # fmt: skip
    for version in known:
        if version.content == draft.content:
            return Pushed(version, made=False)
    if dry_run:
        return Pushed(draft, made=True)
    refuse_overwriting(registry, WAY_OUT)
    for file in named:
        put(registry, name, draft, file, files[file.name])
    return Pushed(*complete(registry, name, draft))


def resolve(reference: Reference) -> tuple[Store, Version]:
    """Find the version that a reference means now.

    Raises
    ------
    ModelRefused
        When there is no such model or version, or the alias was never given.
    """
    registry, name = open_registry(reference.registry), reference.name
    if reference.number is not None:
        return registry, read_version(registry, name, reference.number)
    promotion = aliases.newest(registry, name, reference.tag)
    if promotion is None:
        known = tags(registry, name)
        raise ModelRefused(
            f"{name} has no {reference.tag} in {registry.url} yet; it has {', '.join(known)}: take one of these, or "
            f"run covseg models promote {registry.url}/{name}@{known[-1]} {reference.tag}"
        )
    version = read_version(registry, name, promotion.version)
    if version.content != promotion.content:
        raise ModelRefused(
            f"{registry.url}: {name} {version.tag} is not the content that was promoted to {reference.tag}: "
            "somebody replaced its record; nothing was opened"
        )
    return registry, version


def pinned(ref: str) -> str:
    """Say a model so that it means the same for every process and at any later time.

    An alias becomes the version it means now, a registry its full URL, a path an absolute one.
    """
    if not is_reference(ref):
        return ref if ref in SHIPPED else str(Path(ref).absolute())
    reference = parse(ref)
    return _lasting(*resolve(reference), reference.name)


def _lasting(registry: Store, version: Version, name: str) -> str:
    return str(Reference(registry.url, name, version.tag))


def pull(ref: str, folder: Path | None = None) -> Pulled:
    """Bring a version here, and check every digest, of what is here already too.

    Parameters
    ----------
    ref : str
        ``[REGISTRY/]NAME@TAG``.
    folder : Path or None
        Where to; one that is new, empty or holds a part of this version. None is the local cache.

    Raises
    ------
    ModelRefused
        When the registry's bytes are not those of the version.
    UsageError
        When the folder holds something else.
    """
    name = parse(ref).name
    registry, version = resolve(parse(ref))
    if folder is not None:
        _refuse_foreign(folder, version)
    return Pulled(_fill(registry, name, version, folder), _lasting(registry, version, name))


def _fill(registry: Store, name: str, version: Version, folder: Path | None = None) -> Path:
    """Fetch what a folder, by default the cache's, does not hold of a version yet; each file appears whole."""
    if folder is None:
        folder = cache_folder() / "models" / name / version.content[:16]
    for file in version.files:
        if not _sound(folder / file.name, file):
            LocalStore(folder).write(file.name, get(registry, name, version, file))
    return folder


def promote(ref: str, alias: str, by: str, note: str = "", *, dry_run: bool = False) -> tuple[Promotion | None, bool]:
    """Let an alias mean a version, once it was pulled and opened.

    Returns
    -------
    Promotion or None, bool
        What is in force, and whether this call changed it; a dry run gives what is in force before.

    Raises
    ------
    UsageError
        When there is no such alias, or the store overwrites what must be immutable.
    """
    if alias not in ALIASES:
        raise UsageError(f"unknown alias {alias!r}: wanted {' or '.join(ALIASES)}")
    reference = parse(ref)
    registry, version = resolve(reference)
    open_folder(_fill(registry, reference.name, version))
    if dry_run:
        last = aliases.newest(registry, reference.name, alias)
        return last, last is None or last.version != version.number
    refuse_overwriting(registry, WAY_OUT)
    return aliases.promote(registry, reference.name, alias, version, by, note)


def _sound(path: Path, file: File) -> bool:
    if not path.is_file() or path.stat().st_size != file.size:
        return False
    with path.open("rb") as data:
        return hashlib.file_digest(data, "sha256").hexdigest() == file.sha256


def _refuse_foreign(folder: Path, version: Version) -> None:
    """Refuse to write into a folder that holds other things than parts of this version."""
    known = {file.name: file for file in version.files}
    for path in folder.iterdir() if folder.is_dir() else ():
        if path.name not in known or not _sound(path, known[path.name]):
            raise UsageError(
                f"{path} is no part of {version.tag}: wanted a new or an empty folder, so that nothing is lost"
            )
