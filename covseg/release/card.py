"""The model card: the model config and, where there is one, an evaluation, as one Markdown page.

In: a checked model folder, and the folder of an evaluation of the very same weights and thresholds. Out:
``card.md``. It holds no picture, no image's name and no date, so the same inputs give the same bytes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from covseg.data.published import limits_of
from covseg.errors import ModelRefused, UsageError
from covseg.evaluation.document import CASES, read_back
from covseg.evaluation.examples import Failure, failures
from covseg.evaluation.markdown import gallery, plain, results, table
from covseg.evaluation.records import Evaluation, Measured
from covseg.model_folder.folder import CONFIG, ModelFolder
from covseg.model_folder.test_uses import LEDGER
from covseg.registry.versions import MADE_FROM, PAGE
from covseg.settings.model import ModelConfig
from covseg.storage import LocalStore

NEVER = (
    "Research use only, never a diagnosis: no output of this model may guide the care of a patient, "
    "and none has been validated for that."
)
PRINTED = {"gate": "input filter"}  # name in covseg.json -> name in the card


@dataclass(frozen=True)
class Evidence:
    """An evaluation of this model, and the digest of the ``cases.parquet`` whose rows the failures name."""

    evaluation: Evaluation
    failures: list[Failure]
    cases_sha256: str


def read_evidence(folder: ModelFolder, evaluation: Path) -> Evidence:
    """Read an evaluation of this very model that `covseg evaluate -o` has written.

    Raises
    ------
    UsageError
        When there is none, or it is of other weights or thresholds.
    """
    record, results = read_back(evaluation)
    judged, config = record.model, folder.config
    if judged.weights_sha256 != config.weights_sha256:
        raise UsageError(
            f"{evaluation} is of weights {judged.weights_sha256[:16]}..., {folder.path} has "
            f"{config.weights_sha256[:16]}...: run covseg evaluate {folder.path} again"
        )
    ours, theirs = config.thresholds.model_dump(), judged.thresholds
    if differing := sorted(name for name in ours | theirs if ours.get(name) != theirs.get(name)):
        raise UsageError(
            f"{evaluation} was made with other thresholds ({', '.join(differing)}) than {folder.path} has now: "
            f"run covseg evaluate {folder.path} again"
        )
    return Evidence(record, failures(results), hashlib.sha256((evaluation / CASES).read_bytes()).hexdigest())


def write_card(folder: ModelFolder, evidence: Evidence | None = None) -> Path:
    """Write the card into the model's folder.

    Raises
    ------
    UsageError
        When the folder is a cached copy of a version, which is immutable.
    """
    if folder.reference:
        raise UsageError(f"{folder.reference} is immutable: covseg models pull it -o DIR, and write the card there")
    LocalStore(folder.path).write(PAGE, render_card(folder, evidence).encode())
    return folder.path / PAGE


def render_card(folder: ModelFolder, evidence: Evidence | None = None) -> str:
    """Return the card; without evidence its results are those that stand in ``covseg.json``.

    Raises
    ------
    ModelRefused
        When ``covseg.json`` names no licence or no citation: neither is ever guessed.
    """
    config = folder.config
    for name in ("licence", "citation"):
        if not getattr(config, name).strip():
            raise ModelRefused(f"{folder.path / CONFIG} has an empty {name}: say it there; it is never guessed")
    parts = [
        [f"# {plain(config.id)}", "", f"**{NEVER}**"],
        _use(config), _data(config), _training(config), _settings(config), _recorded(config),
        *_measured(evidence), _origin(folder),
    ]  # fmt: skip
    return "\n".join("\n".join([*part, ""]) for part in parts)


def _use(config: ModelConfig) -> list[str]:
    learnt_from = config.training.get("run", {}).get("set", "")
    refused = "images that are no upright frontal chest radiograph are refused"
    return [
        "## Intended use and limits", "", f"- {plain(config.intended_use)}",
        f"- Every image is seen as {config.size} x {config.size} pixels: small lesions vanish, edges are rough.",
        f"- Input filter: {refused if config.input_filter else 'none: every image passes'}.",
        *_intervals(config), *(f"- {limit}" for limit in limits_of(learnt_from)),
        "- Images of other sources, detectors or ages than the training data: not known until measured there.",
    ]  # fmt: skip


def _intervals(config: ModelConfig) -> list[str]:
    """Say what the interval of the fraction holds, measured; nothing where the model gives none."""
    if config.intervals is None:
        return []
    recorded = config.metrics.get("calibration", {}).get("intervals") or {}
    held = [f"{plain(name)} {_interval(part)}, n {part['n']}" for name, part in recorded.get("coverage", {}).items()]
    measured = f"truth inside, cross-fitted: {'; '.join(held)}" if held else "its coverage is not recorded"
    limit = "It speaks of images like those that it was fitted to: other archives have other errors."
    name = "Interval of the infected fraction (`fraction_low`, `fraction_high`)"
    return [f"- {name}: level {config.intervals.level:g}; {measured}. {limit}"]


def _data(config: ModelConfig) -> list[str]:
    return [
        "## Data, citation, licence", "", f"- Training data: {plain(config.training.get('data', 'not recorded'))}",
        f"- Citation: {plain(config.citation)}", f"- Licence: {plain(config.licence)}",
    ]  # fmt: skip


def _training(config: ModelConfig) -> list[str]:
    facts = [("network", f"{config.network} {config.network_args or ''}"), ("normalisation", config.normalisation)]
    return ["## Training", "", *table(("fact", "value"), [*facts, *_flat(config.training)])]


def _settings(config: ModelConfig) -> list[str]:
    limits = config.input_filter.model_dump(include={"refuse_above", "flag_above"}) if config.input_filter else {}
    intervals = config.intervals.model_dump() if config.intervals else {}
    groups = (
        ("", config.thresholds.model_dump()), ("flag ", config.flags.model_dump()), ("input filter ", limits),
        ("interval ", intervals),
    )  # fmt: skip
    rows = (row for prefix, settings in groups for row in _flat(settings, prefix))
    return ["## Thresholds", "", *table(("setting", "value"), rows)]


def _recorded(config: ModelConfig) -> list[str]:
    rows = list(_flat(config.metrics))
    listed = table(("what", "value"), rows) if rows else ["None."]
    return ["## Results recorded in covseg.json", "", *listed]


def _measured(evidence: Evidence | None) -> list[list[str]]:
    if evidence is None:
        return []
    split = evidence.evaluation.data.split
    return [results(evidence.evaluation), gallery(split, evidence.failures, evidence.cases_sha256)]


def _origin(folder: ModelFolder) -> list[str]:
    ledger = folder.path / LEDGER
    uses = len(ledger.read_text(encoding="utf-8").splitlines()) if ledger.is_file() else 0
    digest = hashlib.sha256((folder.path / CONFIG).read_bytes()).hexdigest()
    return [
        "## Origin", "", f"- Weights sha256 {folder.config.weights_sha256}", f"- Made from {MADE_FROM}{digest}",
        f"- Uses of the Test split recorded beside these weights when this was written: {uses}",
    ]  # fmt: skip


def _flat(facts: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield names and values of nested facts; an estimate is one value."""
    for name, fact in facts.items():
        label = prefix + PRINTED.get(name, name.replace("films", "images"))
        if isinstance(fact, dict) and {"value", "low", "high"} <= fact.keys():
            yield label, _interval(fact) + (f", n {fact['n']}" if "n" in fact else "")
        elif isinstance(fact, dict):
            yield from _flat(fact, f"{label}.")
        elif isinstance(fact, list) and any(isinstance(part, dict) for part in fact):
            yield from _flat({str(number): part for number, part in enumerate(fact, 1)}, f"{label}.")
        else:
            yield label, _text(fact)


def _interval(recorded: dict[str, Any]) -> str:
    return str(Measured.model_validate({"n": 0} | {name: recorded[name] for name in ("value", "low", "high")}))


def _text(value: object) -> str:
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_text, value))
    if value is None:
        return "none"
    return f"{value:.6g}" if isinstance(value, float) else str(value)
