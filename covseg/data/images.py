"""The listing of a labelled set: films, strata, where the truth lies, and what was left out and why."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

STRATA = ("COVID-19", "Non-COVID", "Normal")  # COVID-QU-Ex; other sets may bring their own
FILM_SUFFIXES = (".png", ".jpg", ".jpeg", ".dcm")


@dataclass(frozen=True)
class LabelledFilm:
    """One film with truth.

    Parameters
    ----------
    key : str
        Of the film, relative to the set's root.
    stratum : str
        Class of the film.
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
    """A film that was listed but cannot be judged, and why.

    Parameters
    ----------
    key : str
    reason : str
        ``missing_infection_mask``, ``missing_lung_mask``, ``mask_without_film``, ``mask_size``,
        ``mask_not_binary``, ``mask_unreadable`` or ``missing_film``.
    detail : str
        What was found and what was wanted, with the file's name.
    """

    key: str
    reason: str
    detail: str


@dataclass(frozen=True)
class FilmSet:
    """One split of a labelled set.

    Parameters
    ----------
    root : Path
        Keys are relative to it.
    name, split : str
        ``covid-qu-ex`` or ``generic``; ``Train``, ``Val``, ``Test`` or ``all``.
    films : tuple of LabelledFilm
        Sorted by stratum, then key.
    excluded : tuple of Excluded
        Found while listing.
    strata : tuple of str
        Names in the order of the tables, those without a film included.
    binary_values : tuple of int
        Which upper values a mask may carry beside 0.
    """

    root: Path
    name: str
    split: str
    films: tuple[LabelledFilm, ...]
    excluded: tuple[Excluded, ...] = ()
    strata: tuple[str, ...] = STRATA
    binary_values: tuple[int, ...] = (255,)

    @property
    def counts(self) -> dict[str, int]:
        """Films per stratum, zeros included."""
        found = Counter(film.stratum for film in self.films)
        return {stratum: found[stratum] for stratum in self.strata}

    @property
    def digest(self) -> str:
        """SHA-256 over keys, strata and file sizes: says which listing was judged, not every pixel."""
        lines = [
            f"{film.key}|{film.stratum}|{self._size(film.key)}|{self._size(film.infection)}" for film in self.films
        ]
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()

    def _size(self, key: str | None) -> int:
        path = None if key is None else self.root / key
        return path.stat().st_size if path is not None and path.is_file() else -1

    def select(self, strata: tuple[str, ...] = (), limit: int | None = None) -> FilmSet:
        """Keep the named strata, and every k-th film of each so that about `limit` remain.

        Raises
        ------
        UsageError
            When a named stratum has no film here.
        """
        from dataclasses import replace

        from covseg.errors import UsageError

        wanted = {name.casefold() for name in strata}
        known = {stratum.casefold() for stratum, count in self.counts.items() if count}
        if absent := sorted(wanted - known):
            raise UsageError(
                f"stratum {', '.join(absent)} has no film in split {self.split} of {self.root}: it has "
                + ", ".join(f"{name} {count}" for name, count in self.counts.items())
            )
        films = [film for film in self.films if not wanted or film.stratum.casefold() in wanted]
        if limit is not None and limit < len(films):
            step = len(films) / limit
            films = [films[int(place * step)] for place in range(limit)]
        kept = tuple(name for name in self.strata if not wanted or name.casefold() in wanted)
        return replace(self, films=tuple(films), strata=kept)
