"""``covseg verify``: an independent check of everything that a destination published."""

from __future__ import annotations

from dataclasses import asdict

from pydantic import Field

from covseg.errors import UsageError
from flows.cli.console import show_values, warn
from flows.cli.options import Destination


class VerifyConfig(Destination):
    """What `covseg verify` can be told."""

    show: int = Field(20, ge=1, description="Breaches printed; all are counted.")


def verify(config: VerifyConfig) -> int:
    """Compute every digest and sum of a destination anew; 1 when anything published does not hold."""
    from covseg.verify import verify as check

    stores = config.stores()
    try:
        stores[1].read("run.json")
    except FileNotFoundError:
        raise UsageError(
            f"{stores[1].url} has no run.json: wanted the DEST (and --commits) of a covseg score"
        ) from None
    verdict = check(*stores)
    shown = asdict(verdict)
    if not config.json_:
        for breach in shown.pop("breaches")[: config.show]:
            warn(breach)
        shown = {"breaches": len(verdict.breaches), **shown}
    show_values({"holds": not verdict.breaches, **shown}, as_json=config.json_)
    return 1 if verdict.breaches else 0
