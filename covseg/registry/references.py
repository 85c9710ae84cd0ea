"""How a model in a registry is called: ``[REGISTRY/]NAME@TAG``, the tag a version or an alias.

In: the words of a person or of a config. Out: a `Reference`, or a refusal that says what was wanted. No
store is read, and a URL is never repeated in a message: it may hold a secret by mistake.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from covseg.errors import ModelRefused, UsageError
from covseg.settings.model import WANTED

VARIABLE = "COVSEG_REGISTRY"
ALIASES = ("candidate", "champion")
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
_TAG = re.compile(r"v[1-9][0-9]{0,8}|" + "|".join(ALIASES))


@dataclass(frozen=True)
class Reference:
    """A model in a registry: a folder or URL, the model's name there, and ``v3`` or an alias as its tag."""

    registry: str
    name: str
    tag: str

    def __str__(self) -> str:
        """``s3://bucket/registry/fast@v3``."""
        return f"{self.registry.rstrip('/')}/{self.name}@{self.tag}"

    @property
    def number(self) -> int | None:
        """Number of the version; None behind an alias."""
        return None if self.tag in ALIASES else int(self.tag[1:])


def is_reference(ref: str | Path) -> bool:
    """Tell whether this names a model in a registry; a folder that exists is a folder, whatever its name.

    Examples
    --------
    >>> is_reference("fast@champion"), is_reference("s3://bucket/registry/fast@v3"), is_reference("runs/fast")
    (True, True, False)
    """
    if isinstance(ref, Path):
        return False
    return "://" in ref or ("@" in ref.rpartition("/")[2] and not Path(ref).is_dir())


def parse(ref: str) -> Reference:
    """Take a reference apart.

    Raises
    ------
    ModelRefused
        When it has no tag, or another than a version or an alias.
    UsageError
        When it names no registry and `VARIABLE` is not set.

    Examples
    --------
    >>> parse("s3://bucket/registry/fast@v3")
    Reference(registry='s3://bucket/registry', name='fast', tag='v3')
    """
    place, _, tag = ref.rpartition("@")
    if "/" in tag or not place:
        raise ModelRefused(f"{_shown(ref)} has no tag: wanted {WANTED}")
    if not _TAG.fullmatch(tag):
        raise ModelRefused(f"{_shown(ref)} has an unknown tag: wanted {WANTED}")
    registry, name = split_name(place)
    return Reference(registry, name, tag)


def split_name(place: str) -> tuple[str, str]:
    """Take ``[REGISTRY/]NAME`` apart; without a registry it is the environment's.

    Raises
    ------
    ModelRefused
        When the name cannot be a model's.
    UsageError
        When no registry is named at all.
    """
    head, slash, name = place.rpartition("/")
    if head.endswith(":/"):
        raise ModelRefused(f"the URL has no path in it: a model is {WANTED}")
    check_name(name)
    return (head or "/") if slash else default_registry(), name


def check_name(name: str) -> None:
    """Raise `ModelRefused` when this cannot be a model's name."""
    if not _NAME.fullmatch(name):
        raise ModelRefused(
            f"{_shown(name)} is no name of a model: wanted up to 63 of a-z, 0-9, '.', '_' and '-', a letter or digit "
            f"first; a model is {WANTED}"
        )


def default_registry() -> str:
    """Return the registry of the environment.

    Raises
    ------
    UsageError
        When there is none.
    """
    if not (url := os.environ.get(VARIABLE)):
        raise UsageError(f"no registry is named: set {VARIABLE} to a folder or s3://bucket/prefix, or give it")
    return url


def _shown(ref: str) -> str:
    return "the model's URL" if "://" in ref else repr(ref)
