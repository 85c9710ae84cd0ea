"""``covseg evaluate``: judge a model on a labelled split; the whole table on one screen."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from pydantic import Field

from covseg.settings.evaluate import EvaluateSettings
from flows.cli.console import progress_line


class EvaluateConfig(EvaluateSettings):
    """What `covseg evaluate` can be told, by flags or by a TOML file."""

    output: Annotated[Path, Parameter(alias="-o")] = Field(
        default=Path("evaluation"), description="Folder for metrics.json, cases.parquet and evaluation.html."
    )
    json_: Annotated[bool, Parameter(name="--json")] = Field(default=False, description="Print the headline as JSON.")


def evaluate(config: Annotated[EvaluateConfig, Parameter(name="*")]) -> int:
    """Judge a model on a labelled split: every averaging convention, every stratum, with intervals."""
    from covseg.evaluation.evaluate import evaluate as run
    from covseg.evaluation.text import screen

    evaluation = run(config, progress_line("images"))
    if config.json_:
        content = evaluation.model_dump(mode="json")
        shown = {name: content[name] for name in ("intended_use", "headline", "data", "warnings", "cost")}
        print(json.dumps({**shown, "output": str(config.output)}))
        return 0
    print("\n".join(screen(evaluation)))
    print(f"{config.output}/evaluation.html, metrics.json, cases.parquet. Research use only, not for diagnosis.")
    return 0
