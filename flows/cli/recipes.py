"""``covseg recipes``: list the recipes, explain one field by field, or lay runs beside what was published."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter
from pydantic import BaseModel, Field

from flows.cli.console import show_result
from flows.cli.options import Json, Options

if TYPE_CHECKING:
    from covseg.training.recipe import Recipe


class RecipesConfig(Options):
    """What `covseg recipes` can be told."""

    recipe: str = Field(default="", description="Explain this one; without it, list them all.")
    table: Annotated[tuple[Path, ...], Parameter(negative="", consume_multiple=True)] = Field(
        default=(), description="Run folders with their evaluation: a Markdown table beside the published numbers."
    )
    json_: Json = False


def recipes(config: RecipesConfig = RecipesConfig()) -> int:  # noqa: B008
    """List and explain the training recipes."""
    from covseg.training.recipe import load_recipe, shipped

    if config.table:
        from covseg.release.recipe_table import table

        text = table(list(config.table))
        show_result({"markdown": text}, [text], as_json=config.json_)
        return 0
    if config.recipe:
        recipe = load_recipe(config.recipe)
        show_result(recipe.model_dump(mode="json"), explain(recipe), as_json=config.json_)
        return 0
    every = [load_recipe(name) for name in shipped()]
    lines = (f"{recipe.name:<20} {recipe.title}\n{'':<20} {recipe.published or 'ours'}" for recipe in every)
    show_result([recipe.model_dump() for recipe in every], lines, as_json=config.json_)
    return 0


def explain(recipe: Recipe) -> list[str]:
    """Lay out every field: value, where it comes from, and what it means."""
    lines = [f"{recipe.name}: {recipe.title}", f"published: {recipe.published or 'ours'}", ""]
    for path, value, text in _fields(recipe, ""):
        origin = "ours" if any(path == name or path.startswith(f"{name}.") for name in recipe.ours) else ""
        lines.append(f"{path:<32} {value!s:<28} {origin:<5} {text}".rstrip())
    return lines


def _fields(model: BaseModel, path: str) -> list[tuple[str, Any, str]]:
    from covseg.training.recipe import described

    fields: list[tuple[str, Any, str]] = []
    for name, text in described(type(model)).items():
        value = getattr(model, name)
        if isinstance(value, BaseModel):
            fields += _fields(value, f"{path}{name}.")
        elif path or name not in ("name", "title", "published", "ours"):
            fields.append((path + name, value, text))
    return fields
