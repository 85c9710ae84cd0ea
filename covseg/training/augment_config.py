"""The ``[augment]`` and ``[augment.path]`` tables of a recipe: what may happen to a training image, and how often."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class Frozen(BaseModel):
    """A table of a recipe: an unknown key is refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class PathConfig(Frozen):
    """How an image may have been taken, kept and shrunk on its way here; a probability each, 0 leaves it out."""

    share: float = Field(1.0, ge=0, le=1, description="Of the images; the others stay as they are.")
    transfer: float = Field(0.0, ge=0, le=1, description="Fine detail damped or raised, by `transfer_db` at Nyquist.")
    transfer_db: tuple[float, float] = Field((-26.0, 10.0), description="Range, decibels.")
    resample: float = Field(0.0, ge=0, le=1, description="Down and up again, each with a filter of its own.")
    jpeg: float = Field(0.0, ge=0, le=1, description="JPEG of quality 30 to 95.")
    noise: float = Field(0.0, ge=0, le=1, description="Gaussian noise, white or coarse.")
    noise_std: tuple[float, float] = Field((0.005, 0.06), description="Range, as a share of full scale.")
    tone: float = Field(0.0, ge=0, le=1, description="Grey values bent: gamma, window, sigmoid, or equalised in part.")
    levels: float = Field(0.0, ge=0, le=1, description="Only 8 to 64 grey levels.")
    frame: float = Field(0.0, ge=0, le=1, description="Cropped or bordered by up to a tenth a side, or collimated.")
    letters: float = Field(0.0, ge=0, le=1, description="Letters burnt in.")


class AugmentConfig(Frozen):
    """Moves of the image (its masks move along), then of its grey values; a probability each, 0 leaves it out."""

    mirror: float = Field(0.0, ge=0, le=1)
    affine: float = Field(0.0, ge=0, le=1, description="Probability of the four below, together.")
    shift: float = Field(0.0, ge=0, le=0.5, description="Share of the side.")
    scale: float = Field(0.0, ge=0, le=0.5)
    rotate: float = Field(0.0, ge=0, le=45, description="Degrees.")
    shear: float = Field(0.0, ge=0, le=30, description="Degrees.")
    elastic: float = Field(0.0, ge=0, le=1)
    exposure: float = Field(0.0, ge=0, le=1, description="Probability of the brightness and contrast change.")
    brightness: float = Field(0.0, ge=0, le=1)
    contrast: float = Field(0.0, ge=0, le=1)
    gamma: float = Field(0.0, ge=0, le=1, description="Probability of a gamma in [.7, 1.4].")
    blur: float = Field(0.0, ge=0, le=1)
    noise: float = Field(0.0, ge=0, le=1)
    noise_std: tuple[float, float] = Field((0.0088, 0.0152), description="Range, as a share of full scale.")
    path: PathConfig = Field(PathConfig(), exclude_if=lambda path: path == PathConfig())
