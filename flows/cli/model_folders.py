"""``covseg models average | release | combine | fit-filter | prove | card``: to a finished model folder."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from flows.cli.console import progress, show_result
from flows.cli.options import OUTPUT, Json, Options

if TYPE_CHECKING:
    from covseg.settings.model import ModelConfig


class CardConfig(Options):
    """What `covseg models card` can be told."""

    folder: str = Field(description="'default' or a model folder; its card.md is written.")
    evaluation: Path | None = Field(
        None, description="Folder that covseg evaluate FOLDER -o has written: tables by stratum, and failures."
    )
    dry_run: bool = Field(False, description="Print the card instead.")
    json_: Json = False


class ReleaseConfig(Options):
    """What `covseg models release` can be told."""

    run: Path = Field(description="Folder that covseg train has filled.")
    output: Annotated[Path, OUTPUT] = Field(description="The model folder; made or overwritten.")
    name: str = Field("", description="Id of the model; default: the recipe's name.")
    lung_model: str = Field("default", description="Draws the lungs for a run that draws infection only.")
    licence: str = Field("", description="Of the training data, where it is no published set.")
    citation: str = Field("", description="Of the training data, where it is no published set.")
    data: Path | None = Field(None, description="Folder with Val: prove the exported graph on real images.")
    json_: Json = False


class CombineConfig(Options):
    """What `covseg models combine` can be told."""

    folders: tuple[str, ...] = Field(description="Model folders, 'default', 'benchmark', or versions in a registry.")
    output: Annotated[Path, OUTPUT] = Field(description="A new or empty folder.")
    name: str = Field(description="Id of the new model.")
    mirror: bool = Field(False, description="Every model also reads the image mirrored: twice the cost.")
    json_: Json = False


class AverageConfig(Options):
    """What `covseg models average` can be told."""

    runs: tuple[Path, ...] = Field(description="Folders that covseg train has filled, of one network.")
    data: Path = Field(description="Folder with Train (COVID-QU-Ex), or images/, masks/.")
    output: Annotated[Path, OUTPUT] = Field(description="The safetensors file; made or overwritten.")
    images: int = Field(960, ge=16, description="Train images from which batch norms take their statistics anew.")
    lung_model: str = Field("default", description="Draws the lungs for runs that saw predicted ones.")
    json_: Json = False


class FitFilterConfig(Options):
    """What `covseg models fit-filter` can be told."""

    folder: Path = Field(description="Model folder, changed in place.")
    data: Path = Field(description="Folder with Train and Val (COVID-QU-Ex), or images/, masks/.")
    images: int = Field(900, ge=20, description="Train images that stand for frontal chest radiographs.")
    members: int = Field(60, ge=4, description="Drawn images of every family of what is not one.")
    json_: Json = False


class ProveConfig(Options):
    """What `covseg models prove` can be told."""

    folder: str = Field(description="'default', 'benchmark' or a model folder, changed in place.")
    data: Path = Field(description="Folder with Val, and Train for int8 (COVID-QU-Ex), or images/, masks/.")
    precision: tuple[Literal["float32", "bfloat16", "int8"], ...] = Field(
        ("float32", "bfloat16", "int8"), description="Precisions of backend openvino to measure."
    )
    limit: int | None = Field(None, ge=10, description="About so many images, spread over the strata.")
    streams: int | None = Field(None, ge=1, description="Images side by side, one CPU thread each; default: all.")
    json_: Json = False


def release(config: ReleaseConfig) -> int:
    """Make a model folder of a training run's best weights."""
    from covseg.registry import open_model
    from covseg.release.release import check_export, val_images
    from covseg.release.release import release as make

    images = val_images(config.data) if config.data else None  # before anything is written
    made = make(config.run, config.output, config.name, config.lung_model, config.licence, config.citation)
    proved = None if images is None else check_export(open_model(config.output), images)
    lines = [] if proved is None else [f"export differs from torch by {proved:.1e} at most"]
    lines.append(f"{made.id} written to {config.output}; {_unfinished(config.output)}")
    show_result({**_made(made, config.output), "export_difference": proved}, lines, as_json=config.json_)
    return 0


def average(config: AverageConfig) -> int:
    """Write the mean of several runs' weights, for --set network.weights=FILE of a further training."""
    from covseg.training.average import average as mean

    mean(config.runs, config.data, config.output, config.images, config.lung_model)
    line = f"{config.output} written; now covseg train RECIPE --set network.weights={config.output}"
    show_result(
        {"weights": str(config.output), "runs": [str(run) for run in config.runs]}, [line], as_json=config.json_
    )
    return 0


def combine(config: CombineConfig) -> int:
    """Make one model of several: the mean of their probabilities, and of the mirrored image's with --mirror."""
    from covseg.registry import open_model
    from covseg.release.combine import combine as join

    made = join([open_model(folder) for folder in config.folders], config.output, config.name, config.mirror)
    line = f"{made.id} written to {config.output}; {_unfinished(config.output)}"
    show_result(_made(made, config.output), [line], as_json=config.json_)
    return 0


def fit_filter(config: FitFilterConfig) -> int:
    """Fit the input filter that refuses what is no frontal chest radiograph; new weights need another fit."""
    from covseg.release.fit_input_filter import fit_input_filter

    with progress("families of what it refuses") as report:
        fit = fit_input_filter(config.folder, config.data, config.images, config.members, report)
    quality = f"{fit.val_refused:.2%} of {fit.val_images} Val images refused, {fit.val_flagged:.2%} flagged"
    advice = f"now covseg calibrate {config.folder} --data {config.data}"
    show_result(fit.model_dump(), [f"input filter of {config.folder}: {quality}; {advice}"], as_json=config.json_)
    return 0


def prove(config: ProveConfig) -> int:
    """Measure what each precision of backend openvino loses on Val; the model folder keeps the proofs."""
    from covseg.release.prove import prove as measure

    with progress("images") as report:
        streams = config.streams or len(os.sched_getaffinity(0))
        proofs = measure(config.folder, config.data, config.precision, config.limit, streams, report)
    lines = [line for proof in proofs for line in proof.lines()]
    document = {"proofs": [proof.model_dump(mode="json") | {"passed": proof.passed} for proof in proofs]}
    show_result(document, lines, as_json=config.json_)
    return 0


def card(config: CardConfig) -> int:
    """Write a model folder's card.md from covseg.json and an evaluation."""
    from covseg.registry import open_model
    from covseg.release.card import read_evidence, render_card, write_card

    folder = open_model(config.folder)
    evidence = read_evidence(folder, config.evaluation) if config.evaluation else None
    if config.dry_run:
        text = render_card(folder, evidence)
        show_result({"id": folder.config.id, "card": text}, [text], as_json=config.json_)
        return 0
    path = write_card(folder, evidence)
    line = f"{path} written. Research use only, not for diagnosis."
    show_result({"id": folder.config.id, "path": str(path)}, [line], as_json=config.json_)
    return 0


def _made(model: ModelConfig, folder: Path) -> dict[str, object]:
    return {"id": model.id, "weights_sha256": model.weights_sha256, "folder": str(folder)}


def _unfinished(folder: Path) -> str:
    return (
        "it has no input filter and no thresholds yet: "
        f"covseg models fit-filter {folder} --data ROOT, then covseg calibrate {folder} --data ROOT"
    )
