"""A space of recipes: what may change, between which bounds; a TOML file read without Optuna.

In: a TOML file (those of ``covseg/recipes/spaces`` by name). Out: a frozen `Space`.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from covseg.errors import UsageError
from covseg.settings.faults import first_fault
from covseg.training.recipe import FOLDER
from workers.search.parameters import Bundle, Choice, Integer, Parameter

SPACES = FOLDER / "spaces"
OURS = ("name", "title", "published", "ours", "seed", "stop.metric")  # the search's own business


class Space(BaseModel):
    """What may change, and in which order it is tried.

    ``order``: ``tpe`` samples (Optuna's tree-structured Parzen estimator), ``one-at-a-time`` is the recipe and every
    value of every parameter alone, ``grid`` every combination.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    title: str
    recipe: str = Field(description="The recipe that is changed; --recipe takes another.")
    settings: tuple[str, ...] = Field(
        (), description="Laid over the recipe in every trial; of what is searched, the start."
    )
    order: Literal["tpe", "one-at-a-time", "grid"] = "tpe"
    parameters: tuple[Parameter, ...] = Field(min_length=1, alias="parameter")

    @property
    def names(self) -> tuple[str, ...]:
        """All that trials may draw."""
        return tuple(name for parameter in self.parameters for name in parameter.names)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        before: set[str] = set()
        for parameter in self.parameters:
            for name in parameter.names:
                if name in before:
                    raise ValueError(f"{name} stands there twice; wanted each parameter once")
                if name in OURS:
                    raise ValueError(f"{name} is the search's own and cannot be searched")
            if unknown := sorted(set(parameter.when) - before):
                raise ValueError(f"{parameter.names[0]}: when names {unknown[0]!r}, which is no parameter before it")
            before |= set(parameter.names)
        finite = [isinstance(parameter, Integer | Choice | Bundle) for parameter in self.parameters]
        if self.order != "tpe" and not (all(finite) and not any(parameter.when for parameter in self.parameters)):
            raise ValueError(f"order {self.order!r} wants integers, choices and bundles, without conditions")
        return self


def spaces() -> list[str]:
    """Names of the spaces that come with covseg."""
    return sorted(path.stem for path in SPACES.glob("*.toml"))


def load_space(ref: str | Path) -> Space:
    """Read a space by name or path.

    Raises
    ------
    UsageError
        No such space, no TOML, or a parameter that cannot be; the message names it.
    """
    path = SPACES / f"{ref}.toml" if str(ref) in spaces() else Path(ref)
    if not path.is_file():
        raise UsageError(f"no space {str(ref)!r}: wanted one of {', '.join(spaces())}, or a TOML file")
    try:
        tree = tomllib.loads(path.read_text())
        if not tree.get("parameter"):
            raise UsageError(f"space {ref} is empty: wanted at least one [[parameter]]")
        return Space.model_validate(tree)
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{path}: {error}; wanted TOML") from error
    except ValidationError as error:
        raise UsageError(f"space {ref}: {first_fault(error)}") from error
