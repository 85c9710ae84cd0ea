"""``covseg down``: stop what ``covseg up`` started."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from flows.cli.console import note, show_result
from flows.cli.options import Json, Options


class DownConfig(Options):
    """What `covseg down` can be told."""

    state: Path | None = Field(None, description="The --state that covseg up was given.")
    json_: Json = False


def down(config: DownConfig = DownConfig()) -> int:  # noqa: B008
    """Stop the processes that covseg up started, known by pid and start time; history, secrets and logs stay."""
    from flows.machine.down import down as stop
    from flows.machine.state import default_folder

    folder = (config.state or default_folder()).absolute()
    stopped = stop(folder, lambda line: note(f"{line} ..."))
    lines = [f"{part}: {count} stopped" if count else f"{part}: had ended before" for part, count in stopped.items()]
    show_result({"stopped": stopped}, lines or [f"nothing of {folder} runs"], as_json=config.json_)
    return 0
