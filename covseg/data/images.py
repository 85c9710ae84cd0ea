"""The listing of a labelled set: images, strata, where the truth lies, and what was left out and why."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

from covseg.errors import UsageError

STRATA = ("COVID-19", "Non-COVID", "Normal")  # COVID-QU-Ex; other sets may bring their own
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".dcm")


@dataclass(frozen=True)
class LabelledImage:
    """One image with truth.

    Parameters
    ----------
    key : str
        Of the image, relative to the set's root.
    stratum : str
        Class of the image.
    infection : str or None
        Key of the infection mask; None in a set that has lung masks only.
    lung : str or None
        Key of the lung mask; None where the set has none.
    """

    key: str
    stratum: str
    infection: str | None
    lung: str | None = None


@dataclass(frozen=True)
class Excluded:
    """An image that was listed but cannot be judged, and in detail what was found and wanted, with the file's name.

    The reason is ``missing_infection_mask``, ``missing_lung_mask``, ``mask_without_film``, ``mask_size``,
    ``mask_not_binary``, ``mask_unreadable`` or ``missing_film``.
    """

    key: str
    reason: str
    detail: str


@dataclass(frozen=True)
class LabelledSet:
    """One split of a labelled set.

    Parameters
    ----------
    root : Path
        Keys are relative to it.
    name, split : str
        ``covid-qu-ex`` or ``generic``; ``Train``, ``Val``, ``Test`` or ``all``.
    images : tuple of LabelledImage
        Sorted by stratum, then key.
    excluded : tuple of Excluded
        Found while listing.
    strata : tuple of str
        Names in the order of the tables, those without an image included.
    binary_values : tuple of int
        Which upper values a mask may carry beside 0.
    """

    root: Path
    name: str
    split: str
    images: tuple[LabelledImage, ...]
    excluded: tuple[Excluded, ...] = ()
    strata: tuple[str, ...] = STRATA
    binary_values: tuple[int, ...] = (255,)

    @property
    def counts(self) -> dict[str, int]:
        """Images per stratum, zeros included."""
        counted = Counter(image.stratum for image in self.images)
        return {stratum: counted[stratum] for stratum in self.strata}

    @property
    def digest(self) -> str:
        """SHA-256 over keys, strata and file sizes: says which listing was judged, not every pixel."""
        lines = [
            f"{image.key}|{image.stratum}|{self._size(image.key)}|{self._size(image.infection)}"
            for image in self.images
        ]
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()

    def _size(self, key: str | None) -> int:
        path = None if key is None else self.root / key
        return path.stat().st_size if path is not None and path.is_file() else -1

    def places(self, strata: tuple[str, ...]) -> tuple[int, ...]:
        """Return where strata stand in `strata`, by name.

        Raises
        ------
        UsageError
            When one has no image here.
        """
        known = {stratum.casefold(): place for place, stratum in enumerate(self.strata) if self.counts[stratum]}
        if absent := [name for name in strata if name.casefold() not in known]:
            there = ", ".join(stratum for stratum, count in self.counts.items() if count)
            raise UsageError(f"stratum {', '.join(absent)} has no image in split {self.split}: it has {there}")
        return tuple(known[name.casefold()] for name in strata)

    def select(self, strata: tuple[str, ...] = (), limit: int | None = None) -> LabelledSet:
        """Keep the named strata, and every k-th image of each so that about `limit` remain.

        Raises
        ------
        UsageError
            When a named stratum has no image here.
        """
        wanted = {name.casefold() for name in strata}
        known = {stratum.casefold() for stratum, count in self.counts.items() if count}
        if absent := sorted(wanted - known):
            raise UsageError(
                f"stratum {', '.join(absent)} has no image in split {self.split} of {self.root}: it has "
                + ", ".join(f"{name} {count}" for name, count in self.counts.items())
            )
        images = [image for image in self.images if not wanted or image.stratum.casefold() in wanted]
        if limit is not None and limit < len(images):
            step = len(images) / limit
            images = [images[int(place * step)] for place in range(limit)]
        kept = tuple(name for name in self.strata if not wanted or name.casefold() in wanted)
        return replace(self, images=tuple(images), strata=kept)
