"""The kinds of parameters of a space: what each draws, and the settings of a recipe that this means.

A parameter draws from anything that suggests as `optuna.trial.Trial` does; Optuna is not needed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Annotated, Literal, Protocol, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from covseg.training.recipe import Recipe

Scalar = bool | int | float | str
Value = Scalar | tuple[Scalar, ...]
Point = dict[str, Scalar]  # what a trial drew, by name


class Draw(Protocol):
    """What draws: an Optuna trial, or anything like it."""

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1) -> int:
        """Draw low, low + step ... high."""

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float:
        """Draw between low and high."""

    def suggest_categorical(self, name: str, choices: Sequence[Scalar]) -> Scalar:
        """Draw one of the choices."""


class _Parameter(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    when: dict[str, tuple[Scalar, ...]] = Field({}, description="Only where these earlier ones have these values.")

    def active(self, point: Mapping[str, Scalar]) -> bool:
        """Whether its conditions hold where the parameters before it stand."""
        return all(point.get(name) in wanted for name, wanted in self.when.items())


class _Bounded(_Parameter):
    field: str
    low: float
    high: float

    @property
    def names(self) -> tuple[str, ...]:
        """What it draws."""
        return (self.field,)

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.low >= self.high:
            raise ValueError(f"{self.field}: low {self.low:g} is not below high {self.high:g}")
        return self

    def settings(self, point: Mapping[str, Scalar], recipe: Recipe) -> list[str]:
        """Return the drawn value as a setting."""
        del recipe
        return [f"{self.field}={json.dumps(point[self.field])}"]

    def start(self, recipe: Recipe) -> Point | None:
        """Return the recipe's own value, or None where it lies outside."""
        value = value_of(recipe, self.field)
        inside = isinstance(value, int | float) and self.low <= value <= self.high
        return {self.field: value} if inside and isinstance(value, int | float) else None


class Integer(_Bounded):
    """A whole number in steps."""

    kind: Literal["integer"]
    low: int
    high: int
    step: int = Field(1, ge=1)

    @model_validator(mode="after")
    def _on_the_grid(self) -> Self:
        if (self.high - self.low) % self.step:
            raise ValueError(
                f"{self.field}: high {self.high} is no whole number of steps of {self.step} above {self.low}"
            )
        return self

    def draw(self, trial: Draw) -> Point:
        """Draw it."""
        return {self.field: trial.suggest_int(self.field, self.low, self.high, step=self.step)}

    def values(self) -> list[Point]:
        """Return all that it can be, in order."""
        return [{self.field: value} for value in range(self.low, self.high + 1, self.step)]

    def start(self, recipe: Recipe) -> Point | None:
        """Return the recipe's own value, or None where it is none of these."""
        own = super().start(recipe)
        return own if own in self.values() else None


class Real(_Bounded):
    """A number, even on a linear or on a logarithmic scale."""

    kind: Literal["linear", "log"]

    @model_validator(mode="after")
    def _positive(self) -> Self:
        if self.kind == "log" and self.low <= 0:
            raise ValueError(f"{self.field}: low {self.low:g}; a logarithmic scale wants one above 0")
        return self

    def draw(self, trial: Draw) -> Point:
        """Draw it."""
        return {self.field: trial.suggest_float(self.field, self.low, self.high, log=self.kind == "log")}

    def values(self) -> list[Point]:
        """Return both ends."""
        return [{self.field: self.low}, {self.field: self.high}]


class Choice(_Parameter):
    """One of several values of a field; a list, such as widths, is a value too."""

    kind: Literal["choice"]
    field: str
    choices: tuple[Value, ...] = Field(min_length=2)

    @property
    def names(self) -> tuple[str, ...]:
        """What it draws."""
        return (self.field,)

    def draw(self, trial: Draw) -> Point:
        """Draw it."""
        return {self.field: trial.suggest_categorical(self.field, [_label(value) for value in self.choices])}

    def values(self) -> list[Point]:
        """Return all that it can be."""
        return [{self.field: _label(value)} for value in self.choices]

    def settings(self, point: Mapping[str, Scalar], recipe: Recipe) -> list[str]:
        """Return the drawn value as a setting."""
        del recipe
        value = next(value for value in self.choices if _label(value) == point[self.field])
        return [f"{self.field}={json.dumps(value)}"]

    def start(self, recipe: Recipe) -> Point | None:
        """Return the recipe's own value, or None where it is none of the choices."""
        value = value_of(recipe, self.field)
        return {self.field: _label(value)} if value in self.choices else None


class Bundle(_Parameter):
    """One of several named sets of settings, for fields that change together; the empty one is the recipe itself."""

    kind: Literal["bundle"]
    name: str
    options: dict[str, tuple[str, ...]] = Field(min_length=2)

    @property
    def names(self) -> tuple[str, ...]:
        """What it draws."""
        return (self.name,)

    def draw(self, trial: Draw) -> Point:
        """Draw it."""
        return {self.name: trial.suggest_categorical(self.name, list(self.options))}

    def values(self) -> list[Point]:
        """Return all that it can be."""
        return [{self.name: option} for option in self.options]

    def settings(self, point: Mapping[str, Scalar], recipe: Recipe) -> list[str]:
        """Return the drawn option's settings."""
        del recipe
        return list(self.options[str(point[self.name])])

    def start(self, recipe: Recipe) -> Point | None:
        """Return the option that changes nothing, or None."""
        del recipe
        plain = [name for name, settings in self.options.items() if not settings]
        return {self.name: plain[0]} if plain else None


class Weights(_Parameter):
    """Weights against each other: each drawn on a logarithmic scale, then scaled to the sum that the recipe has.

    Only their ratios are searched: under Adam a common factor changes nothing but where the gradient is clipped, so
    the recipe's sum is kept (1 where that is 0).
    """

    kind: Literal["weights"]
    fields: tuple[str, ...] = Field(min_length=2)
    low: float = Field(gt=0)
    high: float

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.low >= self.high:
            raise ValueError(f"weights of {', '.join(self.fields)}: low {self.low:g} is not below high {self.high:g}")
        return self

    @property
    def names(self) -> tuple[str, ...]:
        """What it draws."""
        return self.fields

    def draw(self, trial: Draw) -> Point:
        """Draw them."""
        return {name: trial.suggest_float(name, self.low, self.high, log=True) for name in self.fields}

    def values(self) -> list[Point]:
        """Return the points at which one weight is the highest and all others the lowest."""
        return [{name: self.high if name == top else self.low for name in self.fields} for top in self.fields]

    def settings(self, point: Mapping[str, Scalar], recipe: Recipe) -> list[str]:
        """Return the weights as settings."""
        total = sum(_weights(recipe, self.fields)) or 1.0
        drawn = {name: float(point[name]) for name in self.fields}
        return [f"{name}={total * value / sum(drawn.values())!r}" for name, value in drawn.items()]

    def start(self, recipe: Recipe) -> Point | None:
        """Return the recipe's own weights, or None where one lies outside."""
        own = dict(zip(self.fields, _weights(recipe, self.fields), strict=True))
        return dict(own) if all(self.low <= value <= self.high for value in own.values()) else None


Parameter = Annotated[Integer | Real | Choice | Bundle | Weights, Field(discriminator="kind")]


def value_of(recipe: Recipe, field: str) -> object:
    """Return a recipe's value by its dotted name; None where there is none."""
    value: object = recipe
    for part in field.split("."):
        value = getattr(value, part, None)
    return value


def _weights(recipe: Recipe, fields: Sequence[str]) -> list[float]:
    return [float(value) if isinstance(value := value_of(recipe, field), int | float) else 0.0 for field in fields]


def _label(value: object) -> Scalar:
    """Return a value as a category: itself, or a list's JSON."""
    return value if isinstance(value, bool | int | float | str) else json.dumps(value)
