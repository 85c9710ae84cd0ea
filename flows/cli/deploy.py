"""``covseg deploy``: the deployments of this installation, written down and registered with a Prefect server."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field

from flows.cli.console import note, show_result
from flows.cli.mistakes import EXTRAS
from flows.cli.options import OUTPUT, Json, Options
from flows.deploy_settings import DeploySettings


class DeployConfig(DeploySettings, Options):
    """What `covseg deploy` can be told."""

    output: Annotated[Path, OUTPUT] = Field(Path("prefect.yaml"), description="The file to write; replaced if there.")
    dry_run: bool = Field(False, description="Write the file, and register nothing.")
    json_: Json = False


def deploy(config: DeployConfig = DeployConfig()) -> int:  # noqa: B008
    """Write a prefect.yaml for this installation, and register it with the server that PREFECT_API_URL names."""
    from flows.deployment import deployable, ensure_pool, prefect_yaml, register, server

    names, lacking = deployable()
    if not config.dry_run:
        with server():
            pass
    config.output.parent.mkdir(parents=True, exist_ok=True)
    settings = DeploySettings(**config.model_dump(include=set(DeploySettings.model_fields)))
    config.output.write_text(prefect_yaml(settings, names), encoding="utf-8")
    for name, package in lacking.items():
        note(f"{name} is left out: no {package} here, pip install 'covseg[{EXTRAS[package]}]'")
    made = False
    if not config.dry_run:
        made = ensure_pool(config.pool)
        register(config.output)
    document = {
        "file": str(config.output), "pool": config.pool, "pool_made": made, "registered": not config.dry_run,
        "deployments": names, "left_out": lacking,
    }  # fmt: skip
    done = "written" if config.dry_run else "registered"
    lines = [f"{done}: {', '.join(names)} ({config.output}), for the pool {config.pool!r}"]
    if not config.dry_run:
        lines += ["a worker runs them:", f"    prefect worker start --pool {config.pool} --limit 1"]
    show_result(document, lines, as_json=config.json_)
    return 0
