"""``covseg evaluate``: judge a model on a labelled split or beside readers' scores; one screen."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from covseg.settings.evaluate import EvaluateSettings
from flows.cli.console import progress, show_result
from flows.cli.options import OUTPUT, Json, Options, same

Shown = tuple[list[str], dict[str, Any], str]  # the screen, what --json prints, and the files


class EvaluateConfig(EvaluateSettings, Options):
    """What `covseg evaluate` can be told, by flags or by a TOML file."""

    output: Annotated[Path, OUTPUT] = same(EvaluateSettings, "output")
    json_: Json = False


def evaluate(config: EvaluateConfig) -> int:
    """Judge a model on a labelled split, or beside readers' scores: every convention, with intervals."""
    from covseg.data.scores import has_scores

    lines, shown, files = _scores(config) if has_scores(config.data) else _masks(config)
    files = f"{config.output}/{files}. Research use only, not for diagnosis."
    show_result({**shown, "output": str(config.output)}, [*lines, files], as_json=config.json_)
    return 0


def _masks(config: EvaluateConfig) -> Shown:
    from covseg.evaluation.evaluate import evaluate as run
    from covseg.evaluation.text import screen

    with progress("images") as report:
        evaluation = run(config, report)
    shown = evaluation.model_dump(mode="json", include={"intended_use", "headline", "data", "warnings", "cost"})
    return screen(evaluation), shown, "evaluation.html, metrics.json, cases.parquet"


def _scores(config: EvaluateConfig) -> Shown:
    from covseg.evaluation.external.run import evaluate_scores
    from covseg.evaluation.external.text import screen

    with progress("images") as report:
        evaluation = evaluate_scores(config, report)
    shown = evaluation.model_dump(mode="json", include={"intended_use", "lines", "data", "warnings"})
    return screen(evaluation), shown, "external.html, external.json, scores.parquet"
