"""``covseg recipes``: list the recipes, explain one field by field, or lay runs beside what was published."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter
from pydantic import BaseModel, ConfigDict, Field

if TYPE_CHECKING:
    from covseg.training.recipe import Recipe


class RecipesConfig(BaseModel):
    """What `covseg recipes` can be told."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    recipe: str = Field(default="", description="Explain this one; without it, list them all.")
    table: Annotated[tuple[Path, ...], Parameter(negative="", consume_multiple=True)] = Field(
        default=(), description="Run folders with their evaluation: a Markdown table beside the published numbers."
    )
    json_: Annotated[bool, Parameter(name="--json")] = Field(default=False, description="Print JSON.")


def recipes(config: Annotated[RecipesConfig, Parameter(name="*")] = RecipesConfig()) -> int:  # noqa: B008
    """List and explain the training recipes."""
    import json

    from covseg.training.recipe import load_recipe, shipped

    if config.table:
        from covseg.release.recipe_table import table

        print(table(list(config.table)))
        return 0
    if config.recipe:
        recipe = load_recipe(config.recipe)
        print(recipe.model_dump_json(indent=1) if config.json_ else "\n".join(explain(recipe)))
        return 0
    every = [load_recipe(name) for name in shipped()]
    if config.json_:
        print(json.dumps([one.model_dump() for one in every]))
        return 0
    for one in every:
        print(f"{one.name:<20} {one.title}\n{'':<20} {one.published or 'ours'}")
    return 0


def explain(recipe: Recipe) -> list[str]:
    """Lay out every field: value, whose it is, and what it means."""
    lines = [f"{recipe.name}: {recipe.title}", f"published: {recipe.published or 'ours'}", ""]
    for path, value, text in _fields(recipe, ""):
        whose = "ours" if any(path == name or path.startswith(f"{name}.") for name in recipe.ours) else ""
        lines.append(f"{path:<32} {value!s:<28} {whose:<5} {text}".rstrip())
    return lines


def _fields(model: BaseModel, path: str) -> list[tuple[str, Any, str]]:
    from covseg.training.recipe import described

    found: list[tuple[str, Any, str]] = []
    for name, text in described(type(model)).items():
        value = getattr(model, name)
        if isinstance(value, BaseModel):
            found += _fields(value, f"{path}{name}.")
        elif path or name not in ("name", "title", "published", "ours"):
            found.append((path + name, value, text))
    return found
