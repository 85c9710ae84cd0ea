"""A space laid over a recipe: what a trial's recipe is, what is tried first, and whether all of it can be.

It knows no study and no cluster. The recipe of a point is a function of the point alone.
"""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import cast

from covseg.errors import UsageError
from covseg.training.recipe import Recipe, load_recipe
from workers.search.cost import gflop
from workers.search.parameters import Parameter, Point, Real, Scalar, Weights
from workers.search.space import Space

METRICS = {"covid": "val_operating_dice", "robust": "val_robust_dice"}  # by objective
METRIC = METRICS["covid"]
DRAWS = 64  # random points that a check looks at
EPOCHS = "stop.epochs"


@dataclass(frozen=True)
class SearchPlan:
    """What is searched.

    Parameters
    ----------
    space : Space
    ref : str
        Name or path of the recipe.
    settings : tuple of str
        ``a.b=c``, laid over the recipe in every trial.
    budget : float
        Compute of a whole trial, as a multiple of the recipe's own.
    metric : str
        Column of ``metrics.csv`` that judges a trial, at its highest.
    listed : tuple of Point
        Tried in this order instead of what the space's own would be; nothing is drawn.
    """

    space: Space
    ref: str
    settings: tuple[str, ...] = ()
    budget: float = 1.0
    metric: str = METRIC
    listed: tuple[Point, ...] = ()

    @cached_property
    def base(self) -> Recipe:
        """The recipe with what every trial has, before anything is drawn and before the budget."""
        return self._load([])

    def at(self, point: Mapping[str, Scalar]) -> Recipe:
        """Return a trial's recipe.

        Its epochs are those that cost as much as the recipe's own, times the budget: a finer grid gets fewer. Where
        the space draws the epochs, they are taken as drawn, times the budget.
        """
        base = self.base
        drawn = self._load(self.changes(point, base))
        share = 1.0 if EPOCHS in point else gflop(base) / gflop(drawn)
        epochs = max(1, round(self.budget * drawn.stop.epochs * share))
        return drawn.model_copy(update={"stop": drawn.stop.model_copy(update={"epochs": epochs})})

    def changes(self, point: Mapping[str, Scalar], base: Recipe) -> list[str]:
        """Return a point's settings over the recipe."""
        active = [one for one in self.space.parameters if one.names[0] in point]
        return [setting for parameter in active for setting in parameter.settings(point, base)]

    @cached_property
    def start(self) -> Point:
        """The recipe's own point; without the parameters whose value in the recipe the space does not have."""
        base, point = self.base, Point()
        for parameter in self.space.parameters:
            if parameter.active(point):
                point |= parameter.start(base) or {}
        return point

    @cached_property
    def first(self) -> list[Point]:
        """The points that are tried before any is sampled; all of them, in the two orders that sample none.

        With ``tpe`` they are the recipe and, along each parameter, its next neighbour.
        """
        space, start = self.space, self.start
        if self.listed:
            return list(self.listed)
        if space.order == "grid":
            parts = itertools.product(*(parameter.values() for parameter in space.parameters))
            return [{name: value for part in one for name, value in part.items()} for one in parts]
        if space.order == "one-at-a-time":
            every = [start | value for parameter in space.parameters for value in parameter.values()]
            return [start, *(point for point in every if point != start)]
        near = [start | moved for one in space.parameters if (moved := _neighbour(one, start))]
        return [start, *near]

    def count(self, trials: int) -> int:
        """Return how many of so many trials there are: a grid, a sweep or a list has no more than its points."""
        return trials if self.space.order == "tpe" and not self.listed else min(trials, len(self.first))

    def check(self) -> None:
        """Look at every end of every parameter alone, and at many random points.

        Raises
        ------
        UsageError
            The recipe does not take a value, two of the space's contradict each other, or the space cannot be tried in
            its order.
        """
        base, start = self.base, self.start
        for setting in self.settings:
            if (name := setting.partition("=")[0].strip()) in self.space.names:
                raise UsageError(f"--set {setting}: the space searches {name}; set it or search it, not both")
        for parameter in self.space.parameters:
            conditions = {name: wanted[0] for name, wanted in parameter.when.items()}
            for values in parameter.values():
                self._try(values, base, start | conditions | values, build=True)
        if self.space.order == "one-at-a-time" and (lost := set(self.space.names) - set(start)):
            raise UsageError(
                f"order one-at-a-time starts from the recipe, whose {sorted(lost)[0]} is none of the space's values"
            )
        generator = _Random(0)
        for _ in range(DRAWS):
            self._try(point := draw(self.space, generator), base, point)

    def _try(self, shown: Point, base: Recipe, point: Point, build: bool = False) -> None:
        try:
            drawn = self._load(self.changes(point, base))
            if build:
                gflop(drawn)
        except UsageError as error:
            words = ", ".join(f"{name}={value}" for name, value in shown.items())
            raise UsageError(f"the space allows {words}, which the recipe does not take: {error}") from error

    def _load(self, changes: Sequence[str]) -> Recipe:
        return load_recipe(self.ref, [*self.space.settings, *self.settings, *changes, f"stop.metric={self.metric}"])


def draw(space: Space, trial: object) -> Point:
    """Draw a point, parameter by parameter; what has conditions is drawn where they hold.

    `trial` suggests as `optuna.trial.Trial` does; what it drew before it draws again.
    """
    point = Point()
    for parameter in space.parameters:
        if parameter.active(point):
            point |= parameter.draw(trial)  # type: ignore[arg-type]  # Optuna's overloads are narrower than its answers
    return point


def as_toml(recipe: Recipe) -> str:
    """Write a recipe as TOML that `load_recipe` reads back; what is None stays away, as None is its default."""
    return "\n".join(_table(recipe.model_dump(mode="json"), ())).strip() + "\n"


def _table(tree: Mapping[str, object], path: tuple[str, ...]) -> Iterator[str]:
    inner = {name: value for name, value in tree.items() if isinstance(value, Mapping)}
    if path:
        yield f"\n[{'.'.join(path)}]"
    for name, value in tree.items():
        if name not in inner and value is not None:
            yield f"{name} = {json.dumps(value)}"
    for name, value in inner.items():
        yield from _table(value, (*path, name))


def _neighbour(parameter: Parameter, start: Point) -> Point | None:
    """Return the recipe's next value along a parameter; None where the recipe has none."""
    own = {name: start[name] for name in parameter.names if name in start}
    if len(own) < len(parameter.names):
        return None
    if isinstance(parameter, Real | Weights):
        name, value = next(iter(own.items()))
        twice = 2 * cast(float, value)
        return {name: twice if twice <= parameter.high else max(parameter.low, cast(float, value) / 2)}
    values = parameter.values()
    return values[(values.index(own) + 1) % len(values)]


class _Random:
    """Draws evenly, for checks."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)  # noqa: S311 - no secret

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1) -> int:
        del name
        return self._random.randrange(low, high + 1, step)

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float:
        del name
        share = self._random.random()
        return low * (high / low) ** share if log else low + (high - low) * share

    def suggest_categorical(self, name: str, choices: Sequence[Scalar]) -> Scalar:
        del name
        return self._random.choice(choices)
