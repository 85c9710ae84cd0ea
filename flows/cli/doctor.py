"""``covseg doctor``: whether scoring can work from here, part by part, with what to do where it cannot."""

from __future__ import annotations

from pydantic import Field

from flows.cli.console import show, show_json
from flows.cli.options import Json, Options


class DoctorConfig(Options):
    """What `covseg doctor` can be told."""

    dest: str | None = Field(
        None, description="A DEST to be written into: a path, or s3://, gs:// or az://bucket/prefix."
    )
    model: str = Field("default", description="What covseg score takes: default, a folder, NAME@TAG.")
    pool: str = Field("covseg", description="The work pool that runs come from.")
    json_: Json = False


def doctor(config: DoctorConfig = DoctorConfig()) -> int:  # noqa: B008
    """Check versions, model, disk, server, pool, worker, deployment, Ray, storage and clock; 1 when any fails."""
    from flows.doctor import checks

    found = []
    for check in checks(config.model, config.dest, config.pool):
        found.append(check)
        if not config.json_:
            show(f"{check.state:<5} {check.name:<11} {check.found}" + (f": {check.do}" if check.do else ""))
    failed = any(check.state == "fail" for check in found)
    if config.json_:
        show_json({"checks": [check._asdict() for check in found], "failed": failed})
    return 1 if failed else 0
