"""``covseg models``: a registry's models; what makes and finishes a folder stands in `model_folders`."""

from __future__ import annotations

import getpass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import App
from pydantic import Field

from flows.cli.console import show_result
from flows.cli.examples import ending
from flows.cli.model_folders import average, card, combine, fit_filter, prove, release
from flows.cli.options import OUTPUT, Json, Options

if TYPE_CHECKING:
    from covseg.registry.listing import Listed, Shown
    from covseg.registry.versions import Version

models = App(name="models")
for name, command in (
    ("average", average), ("release", release), ("combine", combine), ("fit-filter", fit_filter), ("prove", prove),
    ("card", card),
):  # fmt: skip
    models.command(command, help_epilogue=ending(f"models {name}"))
_REGISTRY = "Folder or s3://bucket/prefix; default: COVSEG_REGISTRY."
_REFERENCE = (
    "[REGISTRY/]NAME@TAG; the tag is v1, v2 ..., candidate or champion; the default registry is COVSEG_REGISTRY."
)


class ListConfig(Options):
    """What `covseg models list` can be told."""

    registry: str | None = Field(None, description=_REGISTRY)
    json_: Json = False


class ShowConfig(Options):
    """What `covseg models show` can be told."""

    model: str = Field(description="[REGISTRY/]NAME for versions and history; with @TAG for one version and its card.")
    json_: Json = False


class PullConfig(Options):
    """What `covseg models pull` can be told."""

    model: str = Field(description=_REFERENCE)
    output: Annotated[Path | None, OUTPUT] = Field(None, description="A new or empty folder; default: the cache.")
    dry_run: bool = Field(False, description="Say which version it is, and stop.")
    json_: Json = False


class PushConfig(Options):
    """What `covseg models push` can be told."""

    folder: str = Field(description="'default', 'benchmark', a model folder, or a version in another registry.")
    name: str = Field(description="The model's name in the registry; the version's number is given there.")
    registry: str | None = Field(None, description=_REGISTRY)
    dry_run: bool = Field(False, description="Say which version it would be, and stop.")
    json_: Json = False


class PromoteConfig(Options):
    """What `covseg models promote` can be told."""

    model: str = Field(description=_REFERENCE)
    alias: str = Field(description="What the version becomes: candidate or champion.")
    note: str = Field("", description="Why; it stands in the history.")
    by: str | None = Field(None, description="Who stands in the history; default: the user of this machine.")
    dry_run: bool = Field(False, description="Say what would change, and stop.")
    json_: Json = False


@models.command(name="list", help_epilogue=ending("models list"))
def list_(config: ListConfig = ListConfig()) -> int:  # noqa: B008
    """List a registry's models: versions, candidate, champion."""
    from covseg.registry import listing, registry

    store = registry.open_registry(config.registry)
    store.check()
    listed = listing.list_models(store)
    named = [{"name": model.name, "versions": list(model.numbers), **model.aliases} for model in listed]
    lines = [*map(_listed, listed), f"{len(listed)} models in {store.url}"]
    show_result({"registry": store.url, "models": named}, lines, as_json=config.json_)
    return 0


@models.command(help_epilogue=ending("models show"))
def show(config: ShowConfig) -> int:
    """Show a model's versions and who was champion when; or one version, its files and its card."""
    from covseg.registry import listing, registry
    from covseg.registry.references import parse, split_name

    if "@" in config.model.rpartition("/")[2]:
        return _show_version(str(parse(config.model)), config.json_)
    place, name = split_name(config.model)
    store = registry.open_registry(place)
    shown = listing.show(store, name)
    history = {alias: [record.model_dump() for record in records] for alias, records in shown.history.items()}
    versions = [version.model_dump() for version in shown.versions]
    document = {"registry": store.url, "name": name, "versions": versions, "history": history}
    show_result(document, [f"{name} in {store.url}", *_screen(shown)], as_json=config.json_)
    return 0


def _show_version(ref: str, as_json: bool) -> int:
    from covseg.registry import open_model
    from covseg.registry.references import parse
    from covseg.registry.registry import resolve
    from covseg.registry.versions import PAGE

    _, version = resolve(parse(ref))
    folder = open_model(ref)
    config = folder.config.model_dump(mode="json")
    files = (f"    {file.sha256[:16]}  {file.size:>12}  {file.name}" for file in version.files)
    lines = [f"{folder.reference}: {_line(version)}", *files, "", (folder.path / PAGE).read_text(encoding="utf-8")]
    document = {"reference": folder.reference, **version.model_dump(), "covseg.json": config}
    show_result(document, lines, as_json=as_json)
    return 0


@models.command(help_epilogue=ending("models pull"))
def pull(config: PullConfig) -> int:
    """Bring a version here, every digest checked: into the cache, or into a folder of your own."""
    from covseg.registry import registry

    if config.dry_run:
        folder, version = None, registry.pinned(config.model)
    else:
        folder, version = registry.pull(config.model, config.output)
    line = f"lies in {folder}, every digest checked" if folder else "is what would be pulled"
    document = {"reference": version, "folder": str(folder) if folder else None, "dry_run": config.dry_run}
    show_result(document, [f"{version} {line}"], as_json=config.json_)
    return 0


@models.command(help_epilogue=ending("models push"))
def push(config: PushConfig) -> int:
    """Make a model folder the next version of a model; the same content twice is one version."""
    from covseg.registry import registry

    store = registry.open_registry(config.registry)
    store.check()
    version, made = registry.push(config.folder, store, config.name, dry_run=config.dry_run)
    reference = f"{store.url}/{config.name}@{version.tag}"
    verb = "has this content already" if not made else "would be made" if config.dry_run else "made"
    document = {"reference": reference, "made": made, "dry_run": config.dry_run, **version.model_dump()}
    show_result(document, [f"{reference} {verb}: {_line(version)}"], as_json=config.json_)
    return 0


@models.command(help_epilogue=ending("models promote"))
def promote(config: PromoteConfig) -> int:
    """Make a version candidate or champion; the history keeps who was it before."""
    from covseg.registry import registry

    version = registry.pinned(config.model)
    by = config.by or _user()
    promotion, changed = registry.promote(version, config.alias, by, config.note, dry_run=config.dry_run)
    document = {
        "reference": version, "alias": config.alias, "changed": changed, "dry_run": config.dry_run,
        "promotion": promotion.model_dump() if promotion else None,
    }  # fmt: skip
    verb = "was already" if not changed else "would become" if config.dry_run else "is now"
    show_result(document, [f"{version} {verb} {config.alias}"], as_json=config.json_)
    return 0


def _screen(shown: Shown) -> list[str]:
    """Show versions, then the history of each alias; the last line of a history is in force."""
    from covseg.registry.aliases import gaps

    lines = [f"    {_line(version)}" for version in shown.versions]
    for alias, history in shown.history.items():
        lines.append(f"{alias}: {f'v{history[-1].version}' if history else 'none yet'}")
        for record in history:
            since = f"v{record.version:<5} {record.promoted_at}"
            lines.append(f"    {record.number:>4}  {since}  {record.by}  {record.note}".rstrip())
        if missing := gaps(history):
            lines.append(f"    WARNING  records were removed from this history: {missing}")
    return lines


def _line(version: Version) -> str:
    return (
        f"{version.tag:<5} {version.model_id:<20} {version.size / 1e6:>7.1f} MB  pushed {version.pushed_at}  "
        f"content {version.content[:16]}"
    )


def _listed(model: Listed) -> str:
    first, last = f"v{model.numbers[0]}", f"v{model.numbers[-1]}"
    aliases = "  ".join(f"{alias} v{number}" for alias, number in model.aliases.items())
    return f"{model.name:<24}{first if first == last else f'{first} - {last}':<14}{aliases}".rstrip()


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "unknown"
