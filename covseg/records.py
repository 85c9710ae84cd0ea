"""The records that walk through the pipeline, from planned input to table row.

`Entry` (what a listing says) -> `Radiograph` (pixels) -> `Prediction` (probabilities) -> `Row`.
`Row` is the table schema: its fields, in order, are the columns of ``severity.parquet``.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from covseg.errors import Reason, Stage, Status

Mask = NDArray[np.uint8]
Grey = NDArray[np.uint8] | NDArray[np.float32]  # of 255, or in [0, 1]; bone bright
BACKGROUND, LUNG, INFECTION = 0, 1, 2
RESEARCH_ONLY = "Research use only, not for diagnosis."
RIGHT, LEFT = 1, 2  # the patient's side; patient right is image left on PA and AP


@dataclass(frozen=True)
class Entry:
    """One object of a listing.

    Parameters
    ----------
    key : str
        Relative to the store's root; any legal S3 key.
    size : int
        Bytes.
    etag : str
        The store's ETag, or ``size-mtime`` on a local disk.
    modified : float
        Seconds since 1970, 0 where unknown; no part of the identity.
    """

    key: str
    size: int
    etag: str
    modified: float = field(default=0.0, compare=False)


@dataclass(frozen=True)
class Radiograph:
    """One image as it leaves the reader.

    Parameters
    ----------
    samples : ndarray of uint8 or float32, shape (H, W)
        Grey values, bone bright: of 255 where the source has 8 bits, else in [0, 1].
    sha256 : str
        Of the source bytes.
    view_position : str or None
        ``PA``, ``AP``, ``LL`` ... where the header says so.
    pixel_spacing_mm : float or None
        Detector spacing, when positive and square; None otherwise.
    kind : str
        ``png``, ``jpeg``, ``dicom``, or the name of another entry of `covseg.stages.read.READERS`.
    orientation : str or None
        Where rows and columns point in the patient, as the header says; see `covseg.stages.severity.UPRIGHT`.
    """

    samples: Grey
    sha256: str
    view_position: str | None = None
    pixel_spacing_mm: float | None = None
    kind: str = "png"
    orientation: str | None = None

    @property
    def pixels(self) -> NDArray[np.float32]:
        """Grey values float32 ``(H, W)`` in [0, 1]; of 8 bits made at each call, for they are four times as large."""
        return unit(self.samples)

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width, pixels."""
        return self.samples.shape[0], self.samples.shape[1]


def unit(samples: Grey) -> NDArray[np.float32]:
    """Return grey values as float32 in [0, 1]."""
    return np.divide(samples, 255, dtype=np.float32) if samples.dtype == np.uint8 else np.asarray(samples, np.float32)


def as_bytes(samples: Grey) -> NDArray[np.uint8]:
    """Return grey values as uint8 of 255."""
    return np.asarray(samples if samples.dtype == np.uint8 else cv2.convertScaleAbs(samples, alpha=255), np.uint8)


@dataclass(frozen=True)
class Prediction:
    """The model's answer for one image, at model geometry; no threshold has been applied.

    Parameters
    ----------
    lung, infection : ndarray of float32, shape (S, S)
        Pixel probabilities in [0, 1].
    presence : float
        Probability that the image shows any infection.
    features : ndarray of float32, shape (F,)
        Bottleneck features, averaged over the image; what the input filter looks at.
    """

    lung: NDArray[np.float32]
    infection: NDArray[np.float32]
    presence: float
    features: NDArray[np.float32]


@dataclass(frozen=True)
class Masks:
    """Cleaned masks of one image.

    Parameters
    ----------
    lung, infection : ndarray of uint8, shape (H, W)
        0 or 1; infection lies inside lung.
    side : ndarray of uint8, shape (H, W)
        0 outside the lung, 1 the patient's right lung, 2 the left.
    merged : bool
        The two lungs touched and were split at the midline.
    outside_share : float
        Share of the thresholded infection that lay outside the lung before clipping; 0 without infection.
    component_count : int
        8-connected parts of the infection mask, counted at model geometry.
    largest_component_share : float or None
        Share of the infection in its largest part; None without infection.
    """

    lung: Mask
    infection: Mask
    side: Mask
    merged: bool
    outside_share: float
    component_count: int
    largest_component_share: float | None

    @property
    def label_map(self) -> Mask:
        """uint8 ``(H, W)``: 0 background, 1 lung, 2 infection inside the lung."""
        return np.asarray(cv2.add(self.lung, self.infection), np.uint8)  # 0 or 1 each; infection lies inside lung


@dataclass(frozen=True)
class Truth:
    """Truth of one image: masks ``(H, W)`` of 0 or 1; no lung where the set has no lung masks."""

    infection: Mask
    lung: Mask | None


@dataclass(frozen=True)
class Row:
    """One line of the severity table; numbers are None unless the status is ``scored``.

    Fractions are in [0, 1] of the lung unless the name says otherwise; right and left are the
    patient's. Limits of every number: ``covseg/stages/severity.py``.
    """

    input_id: str
    key: str
    etag: str
    sha256: str | None
    size: int
    status: Status
    reason: Reason | None = None
    view_position: str | None = None
    height: int | None = None
    width: int | None = None
    pixel_spacing_mm: float | None = None
    infected_fraction: float | None = None
    infected_fraction_of_image: float | None = None
    infected_fraction_right: float | None = None
    infected_fraction_left: float | None = None
    infected_fraction_right_upper: float | None = None
    infected_fraction_right_middle: float | None = None
    infected_fraction_right_lower: float | None = None
    infected_fraction_left_upper: float | None = None
    infected_fraction_left_middle: float | None = None
    infected_fraction_left_lower: float | None = None
    lung_area_px: int | None = None
    lung_area_fraction: float | None = None
    infected_area_px: int | None = None
    infected_area_mm2: float | None = None
    extent_0_8: int | None = None
    zones_extent_0_24: int | None = None
    zones_affected_0_6: int | None = None
    grade: str | None = None
    grade_table: str | None = None
    zone_method: str | None = None
    infection_probability: float | None = None
    threshold: float | None = None
    fraction_low: float | None = None
    fraction_high: float | None = None
    component_count: int | None = None
    largest_component_share: float | None = None
    lung_ratio_right_left: float | None = None
    infection_outside_lung_fraction: float | None = None
    gate_score: float | None = None
    doubt: float | None = None
    doubt_reason: str | None = None
    qc_flags: tuple[str, ...] = field(default=())
    duplicate_of: str | None = None
    mask_uri: str | None = None
    seg_uri: str | None = None
    sr_uri: str | None = None
    sc_uri: str | None = None
    study_date: str | None = None
    modality: str | None = None
    manufacturer: str | None = None
    manufacturer_model: str | None = None
    body_part: str | None = None
    patient_sex: str | None = None
    patient_age_years: float | None = None
    patient_pseudonym: str | None = None
    study_pseudonym: str | None = None
    days_since_first: int | None = None
    model_id: str = ""
    weights_sha256: str = ""
    config_sha256: str = ""
    input_filter: str | None = None
    backend: str = ""
    code_version: str = ""
    stage: Stage | None = None
    exception_class: str | None = None
    detail: str | None = None

    def with_dicom(self, uris: Mapping[Literal["seg", "sr", "sc"], str]) -> Row:
        """Return the row with the places of its DICOM objects."""
        return replace(self, seg_uri=uris.get("seg"), sr_uri=uris.get("sr"), sc_uri=uris.get("sc"))


def input_id(project_key: bytes, bucket: str, key: str, etag: str) -> str:
    """Name an input by a keyed hash, so that no key, and no name in a key, can be read back.

    Examples
    --------
    >>> input_id(b"k", "archive", "a.png", "1") == input_id(b"k", "archive", "a.png", "2")
    False
    """
    parts = (bucket.encode(), key.encode("utf-8", "surrogateescape"), etag.encode())
    message = b"".join(len(part).to_bytes(8, "big") + part for part in parts)
    return hmac.new(project_key, message, hashlib.sha256).hexdigest()[:32]
