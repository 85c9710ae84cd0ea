"""Walk a labelled set through the corridor and judge every film.

The prediction is the corridor's own (`covseg.pipeline.stream`), not a second pipeline; what is judged
is what `covseg predict` would have written, at source resolution.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from threading import Lock
from typing import Literal

import numpy as np

from covseg.data import BadMask, Excluded, FilmSet, LabelledFilm, read_truth
from covseg.data.masks import read_mask
from covseg.errors import SetRefused
from covseg.evaluation.examples import Shelves
from covseg.metrics.image_results import Case, Cases, judge, refused
from covseg.pipeline import Corridor, Film, Scored, stream
from covseg.records import Entry, Prediction
from covseg.stages.preprocess import resize
from covseg.stages.segment import Backend
from covseg.storage import LocalStore

Lung = Literal["predicted", "truth"]


@dataclass
class Judged:
    """A set after judging.

    Parameters
    ----------
    cases : Cases
        In the set's order.
    excluded : list of Excluded
        Films whose truth cannot be believed; counted, never silently dropped.
    shelves : Shelves
        The pictures that were kept.
    seconds, judge_seconds : float
        Wall clock of the whole walk, and of the metrics and pictures inside it.
    """

    cases: Cases
    excluded: list[Excluded]
    shelves: Shelves
    seconds: float = 0.0
    judge_seconds: float = 0.0


class TruthLungCorridor(Corridor):
    """The corridor with the true lung in the predicted lung's place, for comparison with such papers."""

    films: FilmSet
    by_key: dict[str, LabelledFilm]

    def constrain(self, film: Film, prediction: Prediction) -> Prediction:
        """Swap the lung; the gate has seen the model's own."""
        labelled = self.by_key[film.entry.key]
        if labelled.lung is None:
            raise SetRefused(f"--lung truth wants lung masks, and {film.entry.key} has none")
        try:
            lung = read_mask(self.films.root / labelled.lung, self.films.binary_values) * 255
        except BadMask:
            return prediction  # judging reads it too, and leaves the film out by name
        grid = (resize(lung, self.card.size, self.card.size) > 127).astype(np.float32)
        return replace(prediction, lung=grid)


def with_lung(corridor: Corridor, films: FilmSet, lung: Lung) -> Corridor:
    """Return the corridor that uses the predicted or the true lung."""
    if lung == "predicted":
        return corridor
    other = TruthLungCorridor(corridor.card, corridor.config, corridor.bucket, corridor.key)
    other.films, other.by_key = films, {film.key: film for film in films.films}
    return other


def judge_set(
    corridor: Corridor,
    backend: Backend,
    films: FilmSet,
    streams: int = 1,
    progress: Callable[[int], None] = lambda _: None,
) -> Judged:
    """Predict and judge every film of a set; memory grows by numbers only.

    Parameters
    ----------
    corridor : Corridor
        From `with_lung`.
    backend : Backend
        What runs the model.
    films : FilmSet
    streams : int
        Threads that walk batches side by side.
    progress : callable
        Called with the number of films done.
    """
    judged = Judged(Cases(), list(films.excluded), Shelves())
    labelled = {film.key: film for film in films.films}
    start, lock = time.perf_counter(), Lock()

    def finish(scored: Scored) -> Case | Excluded:
        with lock:  # the shelves and the clock are shared by all streams; a film takes milliseconds here
            arrived = time.perf_counter()
            found = _judge_film(judged.shelves, films, labelled[scored.row.key], scored)
            judged.judge_seconds += time.perf_counter() - arrived
            return found

    walk = stream(corridor, backend, LocalStore(films.root), entries_of(films), streams, finish)
    for done, found in enumerate(walk, 1):
        judged.cases.add(found) if isinstance(found, Case) else judged.excluded.append(found)
        progress(done)
    judged.seconds = time.perf_counter() - start
    return judged


def entries_of(films: FilmSet) -> Iterator[Entry]:
    """List the films as the corridor wants them."""
    for film in films.films:
        state = (films.root / film.key).stat()
        yield Entry(film.key, state.st_size, f"{state.st_size}-{state.st_mtime_ns}")


def _judge_film(shelves: Shelves, films: FilmSet, film: LabelledFilm, scored: Scored) -> Case | Excluded:
    row = scored.row
    try:
        if scored.film is None or scored.masks is None or scored.prediction is None:
            return refused(film.key, film.stratum, str(row.reason), read_truth(films, film))
        truth = read_truth(films, film, scored.masks.infection.shape)
    except BadMask as bad:
        return Excluded(film.key, bad.reason, bad.detail)
    case = judge(film.key, film.stratum, scored.masks, truth, scored.prediction.presence, row.infected_fraction)
    shelves.offer(case, scored.film.radiograph.pixels, scored.masks, truth)
    return case
