"""The finalists of a search beside its recipe: Dice on Val, under shifts and at real size, paired by image.

In: the evaluations of `workers.search.finalists`. Out: a `Promotion`. All differences are of means over the seeds of
each, the same images and the same resamples; Test is not used.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from covseg.evaluation.conditions import TWIN
from covseg.evaluation.document import CONDITIONS, read_back
from covseg.evaluation.records import Measured, Number
from covseg.evaluation.robustness import Answers
from covseg.metrics.convention import RATIOS, Empty, ratios
from covseg.metrics.image_results import ImageResults
from covseg.metrics.intervals import Floats, paired, weighted_mean
from covseg.training.run_folder import differences
from covseg.training.shifted import CHOSEN_BY
from workers.search.cost import gflop
from workers.search.finalists import FINALISTS, RECIPE, UNSEEN, Finalist, Run

NAN = float("nan")
PARTS: dict[str, Callable[[str], bool]] = {
    "shifted": lambda condition: condition in CHOSEN_BY,
    "unseen": lambda condition: condition in UNSEEN,
    "twins": lambda condition: condition.startswith(TWIN),
}
WORDS = {"dice": "on Val", "shifted": "under shifts", "unseen": "under unseen shifts", "twins": "at real size"}
ByImage = Mapping[str, float]  # Dice by the image's key


class Contestant(BaseModel):
    """A finalist or the recipe, over its seeds; Dice and specificity as calibrated, per image of Val.

    Attributes
    ----------
    dice
        COVID-19 Dice of each seed.
    shifted, unseen, twins
        The same under the shifts that a search may select on, under those that nothing has seen, and at real size;
        means over shifts, seeds and images.
    differences
        Of the mean over seeds, paired with the recipe's by image, by the names of `WORDS`; empty for the recipe.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    changed: tuple[str, ...]
    gflop: float
    seeds: tuple[int, ...]
    dice: tuple[Number, ...]
    specificity: Number
    shifted: Number
    unseen: Number
    twins: Number
    differences: dict[str, Measured] = {}

    @property
    def mean(self) -> float:
        """Mean of Dice over the seeds."""
        return float(np.mean(self.dice))

    @property
    def won(self) -> bool:
        """Whether it beats the recipe on Val as it is, and loses nowhere: intervals on the right side of 0."""
        return "dice" in self.differences and self.differences["dice"].low > 0 and not self.lost

    @property
    def lost(self) -> list[str]:
        """Where its interval lies below 0."""
        return [WORDS[name] for name, one in self.differences.items() if one.high < 0]


class Promotion(BaseModel):
    """How the finalists did: the recipe first, then by the search's own order; `best` is the finalist of highest mean.

    `run` is its seed in the middle, which is registered: the best seed would be luck.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    contestants: tuple[Contestant, ...]
    best: str
    won: bool
    verdict: str
    run: str
    registered: str | None = None


def compared(finalists: Sequence[Finalist], runs: Sequence[Run]) -> Promotion:
    """Read the evaluations of all runs, and compare each finalist with the recipe."""
    by_name = {one.name: [run for run in runs if run.job.out.parent.name == one.name] for one in finalists}
    parent, own = _by_image(by_name[RECIPE]), finalists[0].recipe.model_dump(mode="json")
    contestants = []
    for one in finalists:
        seeds, dice = by_name[one.name], _by_image(by_name[one.name])
        results = [read_back(run.job.out / "evaluation")[1] for run in seeds]
        changes = differences(own, one.recipe.model_dump(mode="json"))
        contestants.append(Contestant(
            name=one.name, changed=tuple(f"{name}: {there} -> {here}" for name, there, here in changes),
            gflop=round(gflop(one.recipe), 4), seeds=tuple(run.recipe.seed for run in seeds),
            dice=tuple(_mean(_dice(seed).values()) for seed in results),
            specificity=float(np.mean([_specificity(seed) for seed in results])),
            **{part: _mean(dice[part].values()) for part in PARTS},
            differences={} if one.name == RECIPE else {
                part: found for part in WORDS if (found := _difference(dice[part], parent[part]))
            },
        ))  # fmt: skip
    best = max(contestants[1:], key=lambda one: one.mean)
    middle = sorted(zip(best.dice, best.seeds, strict=True))[(len(best.seeds) - 1) // 2][1]
    return Promotion(
        contestants=tuple(contestants), best=best.name, won=best.won, verdict=_verdict(best, contestants[0]),
        run=f"{FINALISTS}/{best.name}/seed-{middle}",
    )  # fmt: skip


def _by_image(runs: Sequence[Run]) -> dict[str, ByImage]:
    """Return Dice of each image with infection, the mean over seeds and conditions, as it is and by `PARTS`."""
    found: dict[str, list[ByImage]] = defaultdict(list)
    for run in runs:
        folder = run.job.out / "evaluation"
        answers = pq.read_table(folder / CONDITIONS)
        found["dice"].append(_dice(read_back(folder)[1]))
        for part, wanted in PARTS.items():
            found[part].append(_of_conditions(answers, wanted))
    return {part: {key: float(np.mean([seed[key] for seed in seeds])) for key in seeds[0]}
            for part, seeds in found.items()}  # fmt: skip


def _of_conditions(answers: pa.Table, wanted: Callable[[str], bool]) -> ByImage:
    """Return an image's mean over the conditions; what was refused has missed all of its truth."""
    names = answers.column("condition")
    kept = [name for name in names.unique().to_pylist() if wanted(name)]
    rows = Answers(answers.filter(pc.is_in(names, pa.array(kept, pa.string()))))
    values = defaultdict[str, list[float]](list)
    for key, dice, infected in zip(rows.keys, np.nan_to_num(rows.dice()), rows.positive, strict=True):
        if infected:
            values[key].append(float(dice))
    return {key: float(np.mean(several)) for key, several in values.items()}


def _dice(results: ImageResults) -> ByImage:
    counted = results.where(_counted(results))
    values = ratios(counted.counts(), Empty.ONE)[:, list(RATIOS).index("dice")]
    return dict(zip(map(str, counted.keys), values.tolist(), strict=True))


def _counted(results: ImageResults) -> NDArray[np.bool_]:
    covid = results.strata == "COVID-19"
    return covid if covid.any() else results.positive


def _specificity(results: ImageResults) -> float:
    clean = (results.column("fp") == 0) & ~results.refused
    return _mean(clean[~results.positive].astype(float).tolist())


def _mean(values: Collection[float]) -> float:
    return float(np.mean(list(values))) if values else NAN


def _difference(ours: ByImage, theirs: ByImage) -> Measured | None:
    """Return the paired difference over the images of both; None without any."""
    keys = [key for key in ours if key in theirs]
    if not keys:
        return None
    one, other = (weighted_mean(_column(values, keys)) for values in (ours, theirs))
    [found] = paired(one, other, np.zeros(len(keys), np.int64))
    return Measured(value=found.value, low=found.low, high=found.high, n=len(keys))


def _column(values: ByImage, keys: Sequence[str]) -> Floats:
    return np.array([[values[key]] for key in keys], np.float64)


def _verdict(best: Contestant, parent: Contestant) -> str:
    words = "beats the recipe" if best.won else "does not beat the recipe"
    gaps = ", ".join(
        f"{gap.value:+.3f} [{gap.low:+.3f}, {gap.high:+.3f}] {WORDS[name]} (n {gap.n})"
        for name, gap in best.differences.items()
    )
    lost = f"; it loses {' and '.join(best.lost)}" if best.lost else ""
    return (
        f"{best.name} {words}: COVID-19 Dice {best.mean:.3f} against {parent.mean:.3f} on Val, paired difference "
        f"{gaps}, means of {len(best.seeds)} seeds{lost}; Test was not used"
    )
