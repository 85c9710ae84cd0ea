"""From stored values to grey: DICOM's modality, VOI and polarity steps, as one table.

In: the allowed elements. Out: a table with one grey value in [0, 1] for each possible stored value. An image is then
one look-up, and its steps cost the same at any size. Source: DICOM PS3.3, C.11.1, C.11.2, C.11.2.1.2, C.7.6.3.1.2.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from covseg.errors import Reason
from covseg.stages.read.elements import Elements
from covseg.stages.read.sniff import refusal

Values = NDArray[np.float64]


def grey_table(elements: Elements, bits: int, *, signed: bool) -> NDArray[np.float32]:
    """Return the grey value of each stored value, from the lowest to the highest.

    The modality LUT, or rescale slope and intercept, comes first. Then the first VOI LUT; without one the first window
    (LINEAR, LINEAR_EXACT or SIGMOID); without a usable window the full range of the stored bits. Where an image offers
    several, the first is the one that its maker shows first. MONOCHROME1 is inverted last.

    Greys are rounded to 16 bits, so that an image and its inverted twin get the same floats.

    Parameters
    ----------
    bits : int
        Bits stored, 1 to 16.
    signed : bool
        Stored values start at ``-2 ** (bits - 1)``, not at 0.

    Returns
    -------
    ndarray of float32, shape (2 ** bits,)
        In [0, 1], bone bright.

    Raises
    ------
    RadiographRefused
        ``corrupt`` for a table or slope that cannot be; ``unsupported_mode`` for an unknown VOI function.
    """
    lowest = -(2 ** (bits - 1)) if signed else 0
    values, low, high = _modality(elements, np.arange(lowest, lowest + 2**bits, dtype=np.float64), signed=signed)
    item = elements.first_item("VOILUTSequence")
    window = _first_window(elements)
    if item is not None:
        greys = _look_up(item, values, signed=low < 0)[0]
    elif window is not None:
        greys = _window(values, *window, elements.text("VOILUTFunction") or "LINEAR")
    else:
        greys = (values - low) / (high - low)
    if elements.text("PhotometricInterpretation") == "MONOCHROME1":
        greys = 1 - greys
    return (np.round(greys * 65535) / 65535).astype(np.float32)


def _modality(elements: Elements, stored: Values, *, signed: bool) -> tuple[Values, float, float]:
    """Return the modality values of all stored values, and the lowest and highest that can occur."""
    item = elements.first_item("ModalityLUTSequence")
    if item is not None:
        greys, scale = _look_up(item, stored, signed=signed)
        return greys * scale, 0.0, float(scale)
    slope, intercept = elements.number("RescaleSlope", 1), elements.number("RescaleIntercept", 0)
    if slope == 0 or not np.isfinite([slope, intercept]).all():
        raise refusal(Reason.CORRUPT, f"rescale slope {slope:g} and intercept {intercept:g} leave no grey values")
    values = stored * slope + intercept
    return values, float(values.min()), float(values.max())


def _look_up(item: Elements, values: Values, *, signed: bool) -> tuple[Values, int]:
    """Apply a LUT item; return greys in [0, 1] and the full scale of its entries.

    Values before the first mapped value get the first entry, values behind the last get the last.
    """
    descriptor = item.numbers("LUTDescriptor")
    if len(descriptor) != 3 or not 1 <= descriptor[2] <= 16:
        raise refusal(Reason.CORRUPT, "a DICOM LUT without entries, first value and bits (1 to 16)")
    count, first, bits = (int(value) for value in descriptor)
    count = count or 2**16  # 65536 does not fit in the 16-bit word
    first -= 2**16 if signed and first >= 2**15 else 0
    table = _entries(item, count)
    scale = 2**bits - 1
    index = np.clip(np.rint(values) - first, 0, count - 1).astype(np.int64)
    return np.minimum(table[index] / scale, 1.0), scale


def _entries(item: Elements, count: int) -> NDArray[np.uint16]:
    """Return the entries of a LUT, stored as 16-bit words or, two to a word, as bytes."""
    data = item.data("LUTData")
    words = np.frombuffer(data[: len(data) // 2 * 2], f"{item.byte_order('LUTData')}u2").astype("<u2")
    entries = words if words.size >= count else words.view(np.uint8).astype("<u2")
    if entries.size < count:
        raise refusal(Reason.CORRUPT, f"a DICOM LUT announces {count} entries and holds {len(data)} bytes")
    return entries[:count]


def _first_window(elements: Elements) -> tuple[float, float] | None:
    """Return centre and width of the first window; None when it is absent, or empty as some writers leave it."""
    centres, widths = elements.numbers("WindowCenter"), elements.numbers("WindowWidth")
    if not centres or not widths or not np.isfinite([centres[0], widths[0]]).all() or widths[0] <= 0:
        return None
    return centres[0], widths[0]


def _window(values: Values, centre: float, width: float, function: str) -> Values:
    """Map modality values through a window to [0, 1]; the formulas of PS3.3 C.11.2.1.2 and C.11.2.1.3."""
    if function == "SIGMOID":
        return 1 / (1 + np.exp(np.clip(-4 * (values - centre) / width, -700, 700)))
    if function == "LINEAR_EXACT":
        return np.clip((values - centre) / width + 0.5, 0, 1)
    if function != "LINEAR":
        raise refusal(Reason.UNSUPPORTED_MODE, "the VOI LUT function is none of LINEAR, LINEAR_EXACT, SIGMOID")
    if width <= 1:  # a window of one value is a step; narrower is not defined for LINEAR
        return (values > centre - 0.5).astype(np.float64)
    return np.clip((values - (centre - 0.5)) / (width - 1) + 0.5, 0, 1)
