"""``covseg version``."""

from __future__ import annotations

from covseg.settings.environment import code_version
from flows.cli.console import show_result
from flows.cli.options import Json, Options


class VersionConfig(Options):
    """What `covseg version` can be told."""

    json_: Json = False


def version(config: VersionConfig = VersionConfig()) -> int:  # noqa: B008
    """Print the version."""
    show_result({"version": code_version()}, [code_version()], as_json=config.json_)
    return 0
