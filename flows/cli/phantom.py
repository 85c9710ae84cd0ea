"""``covseg phantom``: made chest radiographs with known lungs and infection."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from covseg.errors import UsageError
from flows.cli.console import show_values
from flows.cli.options import OUTPUT, Json, Options

FORMATS = {
    "png": ("png",),
    "png16": ("png16",),
    "dicom": ("monochrome2", "monochrome1"),
    "both": ("png", "monochrome2", "png16", "monochrome1"),
}


class PhantomConfig(Options):
    """What `covseg phantom` can be told."""

    count: int = Field(ge=1, description="Images to make.")
    output: Annotated[Path, OUTPUT] = Field(
        description="Folder for images/, truth/lung/, truth/infection/ and truth.csv."
    )
    seed: int = Field(0, ge=0, description="Of the first image; the others follow by one.")
    size: int = Field(512, ge=64, le=8192, description="Height in pixels, and width without --width.")
    width: int | None = Field(None, ge=64, le=8192, description="Width in pixels.")
    format: Literal["png", "png16", "dicom", "both"] = Field(
        "png", description="png: 8 bits; png16: 12 bits in 16; dicom: MONOCHROME2 and 1 in turn; both: all in turn."
    )
    bad: bool = Field(False, description="Also write images/bad/: what must be refused; reasons in bad.csv.")
    layout: Literal["images", "covid-qu-ex"] = Field(
        "images",
        description="covid-qu-ex: Train/ and Val/ with three strata, N images in Train and half as many in Val.",
    )
    dry_run: bool = Field(False, description="Say what would be made, and stop.")
    json_: Json = False


def phantom(config: PhantomConfig) -> int:
    """Make chest radiographs with known lungs and infection; the same seed is the same image."""
    if config.layout == "covid-qu-ex" and (config.bad or config.format != "png" or config.width):
        raise UsageError("--layout covid-qu-ex holds square 8-bit PNG only: drop --bad, --format and --width")
    made = _dataset(config) if config.layout == "covid-qu-ex" else _images(config)
    show_values(made | ({"dry_run": True} if config.dry_run else {}), as_json=config.json_)
    return 0


def _images(config: PhantomConfig) -> dict[str, object]:
    if not config.dry_run:
        from covseg.storage import LocalStore
        from covseg.synthetic.phantom.writer import write_bad_inputs, write_images

        store = LocalStore(config.output)
        seeds, size = range(config.seed, config.seed + config.count), (config.size, config.width or config.size)
        for _ in write_images(store, seeds, size, FORMATS[config.format]):
            pass
        if config.bad:
            from covseg.synthetic.bad_inputs import bad_inputs

            write_bad_inputs(store, bad_inputs())
    source, truth = config.output / "images", config.output / "truth.csv"
    return {"images": config.count, "source": str(source), "truth": str(truth)}


def _dataset(config: PhantomConfig) -> dict[str, object]:
    splits = {"Train": config.count, "Val": -(-config.count // 2)}
    if not config.dry_run:
        from covseg.synthetic.phantom.writer import write_dataset

        write_dataset(config.output, splits, config.seed, config.size)
    return {**splits, "directory": str(config.output)}
