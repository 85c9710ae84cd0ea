"""``covseg models``: a registry's models; what makes and finishes a folder stands in `model_folders`."""

from __future__ import annotations

import getpass
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import App, Parameter
from pydantic import BaseModel, ConfigDict, Field

from flows.cli.model_folders import card, combine, fit_filter, release

if TYPE_CHECKING:
    from covseg.registry.registry import Shown
    from covseg.registry.versions import Version

models = App(
    name="models",
    help="Models: to a folder (release, combine, fit-filter, card); in a registry (list, show, pull, push, promote).",
)
for command in (release, combine, fit_filter, card):
    models.command(command)
_REGISTRY = "Folder or s3://bucket/prefix; default: COVSEG_REGISTRY."
_REFERENCE = (
    "[REGISTRY/]NAME@TAG; the tag is v1, v2 ..., candidate or champion; the default registry is COVSEG_REGISTRY."
)
Json = Annotated[bool, Parameter(name="--json")]


class _Config(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ListConfig(_Config):
    """What `covseg models list` can be told."""

    registry: str | None = Field(None, description=_REGISTRY)
    json_: Json = Field(False, description="Print the result as JSON.")


EVERYTHING = ListConfig()


class ShowConfig(_Config):
    """What `covseg models show` can be told."""

    model: str = Field(description="[REGISTRY/]NAME for versions and history; with @TAG for one version and its card.")
    json_: Json = Field(False, description="Print the result as JSON.")


class PullConfig(_Config):
    """What `covseg models pull` can be told."""

    model: str = Field(description=_REFERENCE)
    output: Annotated[Path | None, Parameter(alias="-o")] = Field(
        None, description="A new or empty folder; default: the cache."
    )
    dry_run: bool = Field(False, description="Say which version it is, and stop.")
    json_: Json = Field(False, description="Print the result as JSON.")


class PushConfig(_Config):
    """What `covseg models push` can be told."""

    folder: str = Field(description="'default', 'accurate', a model folder, or a version in another registry.")
    name: str = Field(description="The model's name in the registry; the version's number is given there.")
    registry: str | None = Field(None, description=_REGISTRY)
    dry_run: bool = Field(False, description="Say which version it would be, and stop.")
    json_: Json = Field(False, description="Print the result as JSON.")


class PromoteConfig(_Config):
    """What `covseg models promote` can be told."""

    model: str = Field(description=_REFERENCE)
    alias: str = Field(description="What the version becomes: candidate or champion.")
    note: str = Field("", description="Why; it stands in the history.")
    by: str | None = Field(None, description="Who stands in the history; default: the user of this machine.")
    dry_run: bool = Field(False, description="Say what would change, and stop.")
    json_: Json = Field(False, description="Print the result as JSON.")


@models.command(name="list")
def list_(config: Annotated[ListConfig, Parameter(name="*")] = EVERYTHING) -> int:
    """List a registry's models: versions, candidate, champion."""
    from covseg.registry.registry import list_models, open_registry

    registry = open_registry(config.registry)
    registry.check()
    found = list_models(registry)
    if config.json_:
        listed = [{"name": one.name, "versions": list(one.numbers), **one.aliases} for one in found]
        return _print({"registry": registry.url, "models": listed})
    for one in found:
        named = "  ".join(f"{alias} v{number}" for alias, number in one.aliases.items())
        print(f"{one.name:<24}{_range(one.numbers):<14}{named}".rstrip())
    print(f"{len(found)} models in {registry.url}")
    return 0


@models.command
def show(config: Annotated[ShowConfig, Parameter(name="*")]) -> int:
    """Show a model's versions and who was champion when; or one version, its files and its card."""
    from covseg.registry.references import parse, split_name
    from covseg.registry.registry import open_registry
    from covseg.registry.registry import show as look

    if "@" in config.model.rpartition("/")[2]:
        return _show_version(str(parse(config.model)), config.json_)
    place, name = split_name(config.model)
    registry = open_registry(place)
    found = look(registry, name)
    if config.json_:
        history = {alias: [one.model_dump() for one in lines] for alias, lines in found.history.items()}
        versions = [version.model_dump() for version in found.versions]
        return _print({"registry": registry.url, "name": name, "versions": versions, "history": history})
    print("\n".join([f"{name} in {registry.url}", *_screen(found)]))
    return 0


def _show_version(ref: str, as_json: bool) -> int:
    from covseg.registry import open_model
    from covseg.registry.references import parse
    from covseg.registry.registry import resolve
    from covseg.registry.versions import PAGE

    _, version = resolve(parse(ref))
    folder = open_model(ref)
    if as_json:
        card = folder.config.model_dump(mode="json")
        return _print({"reference": folder.reference, **version.model_dump(), "covseg.json": card})
    print(f"{folder.reference}: {_line(version)}")
    print("\n".join(f"    {file.sha256[:16]}  {file.size:>12}  {file.name}" for file in version.files))
    print("\n" + (folder.path / PAGE).read_text(encoding="utf-8"))
    return 0


@models.command
def pull(config: Annotated[PullConfig, Parameter(name="*")]) -> int:
    """Bring a version here, every digest checked: into the cache, or into a folder of your own."""
    from covseg.registry.registry import pinned
    from covseg.registry.registry import pull as bring

    folder, version = (None, pinned(config.model)) if config.dry_run else bring(config.model, config.output)
    if config.json_:
        return _print({"reference": version, "folder": str(folder) if folder else None, "dry_run": config.dry_run})
    print(
        f"{version} is what would be pulled" if folder is None else f"{version} lies in {folder}, every digest checked"
    )
    return 0


@models.command
def push(config: Annotated[PushConfig, Parameter(name="*")]) -> int:
    """Make a model folder the next version of a model; the same content twice is one version."""
    from covseg.registry.registry import open_registry
    from covseg.registry.registry import push as send

    registry = open_registry(config.registry)
    registry.check()
    version, made = send(config.folder, registry, config.name, dry_run=config.dry_run)
    reference = f"{registry.url}/{config.name}@{version.tag}"
    if config.json_:
        facts = {"made": made, "dry_run": config.dry_run, **version.model_dump()}
        return _print({"reference": reference, **facts})
    verb = "has this content already" if not made else "would be made" if config.dry_run else "made"
    print(f"{reference} {verb}: {_line(version)}")
    return 0


@models.command
def promote(config: Annotated[PromoteConfig, Parameter(name="*")]) -> int:
    """Make a version candidate or champion; the history keeps who was it before."""
    from covseg.registry.registry import pinned
    from covseg.registry.registry import promote as give

    version = pinned(config.model)
    found, changed = give(version, config.alias, config.by or _user(), config.note, dry_run=config.dry_run)
    if config.json_:
        promotion = found.model_dump() if found else None
        return _print({"reference": version, "alias": config.alias, "changed": changed, "dry_run": config.dry_run,
                       "promotion": promotion})  # fmt: skip
    would = "would become" if config.dry_run else "is now"
    print(f"{version} {would if changed else 'was already'} {config.alias}")
    return 0


def _screen(found: Shown) -> list[str]:
    """Show versions, then the history of each alias; the last line of a history is in force."""
    from covseg.registry.aliases import gaps

    lines = [f"    {_line(version)}" for version in found.versions]
    for alias, history in found.history.items():
        lines.append(f"{alias}: {f'v{history[-1].version}' if history else 'none yet'}")
        lines += [
            f"    {one.number:>4}  v{one.version:<5} {one.promoted_at}  {one.by}  {one.note}".rstrip()
            for one in history
        ]
        lines += [
            f"    WARNING  records were removed from this history: {missing}" for missing in [gaps(history)] if missing
        ]
    return lines


def _line(version: Version) -> str:
    return (
        f"{version.tag:<5} {version.model_id:<20} {version.size / 1e6:>7.1f} MB  pushed {version.pushed_at}  "
        f"content {version.content[:16]}"
    )


def _range(numbers: tuple[int, ...]) -> str:
    return f"v{numbers[0]}" if len(numbers) == 1 else f"v{numbers[0]} - v{numbers[-1]}"


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "unknown"


def _print(found: dict[str, Any]) -> int:
    print(json.dumps(found))
    return 0
