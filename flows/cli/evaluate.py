"""``covseg evaluate``: judge a model on a labelled split; the whole table on one screen."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from covseg.settings.evaluate import EvaluateSettings
from flows.cli.console import progress, show_result
from flows.cli.options import OUTPUT, Json, Options, same


class EvaluateConfig(EvaluateSettings, Options):
    """What `covseg evaluate` can be told, by flags or by a TOML file."""

    output: Annotated[Path, OUTPUT] = same(EvaluateSettings, "output")
    json_: Json = False


def evaluate(config: EvaluateConfig) -> int:
    """Judge a model on a labelled split: every averaging convention, every stratum, with intervals."""
    from covseg.evaluation.evaluate import evaluate as run
    from covseg.evaluation.text import screen

    with progress("images") as report:
        evaluation = run(config, report)
    content = evaluation.model_dump(mode="json")
    shown = {name: content[name] for name in ("intended_use", "headline", "data", "warnings", "cost")}
    files = f"{config.output}/evaluation.html, metrics.json, cases.parquet. Research use only, not for diagnosis."
    show_result({**shown, "output": str(config.output)}, [*screen(evaluation), files], as_json=config.json_)
    return 0
