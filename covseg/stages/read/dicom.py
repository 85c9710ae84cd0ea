"""DICOM: is it an image, how large is it, and what grey is each pixel.

In: the bytes of a DICOM object. Out: pixels, view position and spacing. Everything is judged from the header first:
what is not one projection radiograph is refused before its pixels are touched. Whether it shows a chest from the
front is not judged here: headers are often wrong about that, so the input filter looks at the pixels.
"""

from __future__ import annotations

import re

import numpy as np
from pydicom import uid
from pydicom.encaps import get_frame

from covseg.errors import Reason
from covseg.records import Grey
from covseg.stages.read.codestream import Layout, decode, run_decoder
from covseg.stages.read.elements import Elements, read_elements
from covseg.stages.read.grey import DecodedImage, Samples, check_size, grey
from covseg.stages.read.lookup import grey_table
from covseg.stages.read.sniff import refusal

IMAGE_MODALITIES = {"CR", "DX", "RG"}  # computed, digital and scanned conventional radiography
_IMAGELESS_MODALITIES = {"SEG", "SR", "PR", "KO", "REG", "DOC", "RTSTRUCT", "RTPLAN", "RTRECORD", "AU", "ECG", "HD"}
# Without a modality the class decides: CR, DX, secondary capture.
_IMAGE_CLASSES: set[str] = {uid.ComputedRadiographyImageStorage, uid.DigitalXRayImageStorageForPresentation}
_IMAGE_CLASSES |= {uid.SecondaryCaptureImageStorage, ""}
_VIEWS = {"PA", "AP", "LL", "RL", "LLD", "RLD", "LLO", "RLO", "LAT", "LATERAL"}
_COLOUR = {"RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT"}
_SQUARE_WITHIN = 0.01


def read_dicom(data: bytes) -> DecodedImage:
    """Decode one DICOM file, or a bare data set.

    Raises
    ------
    RadiographRefused
        ``not_an_image``, ``not_radiograph``, ``multi_frame``, ``burned_in_annotation``, ``unsupported_mode``,
        ``too_large``, ``too_small``, ``truncated``, ``corrupt``, ``missing_decoder``.
    """
    elements = read_elements(data)
    _check_scope(elements)
    layout = _layout(elements)
    check_size(layout.columns, layout.rows)
    samples = _samples(elements, layout)
    return DecodedImage(_grey(elements, layout, samples), _view(elements), _spacing(elements), _orientation(elements))


def _check_scope(elements: Elements) -> None:
    """Refuse what is no single, finished image, by the header alone."""
    modality, sop_class = elements.text("Modality"), elements.text("SOPClassUID")
    if "OffsetOfTheFirstDirectoryRecordOfTheRootDirectoryEntity" in elements:  # a DICOMDIR states no class of its own
        raise refusal(Reason.NOT_AN_IMAGE, "a DICOMDIR: the index of a folder, which holds no image")
    is_image = modality in IMAGE_MODALITIES or (not modality and sop_class in _IMAGE_CLASSES)
    if sop_class == uid.MediaStorageDirectoryStorage or modality in _IMAGELESS_MODALITIES:
        raise refusal(Reason.NOT_AN_IMAGE, f"a DICOM object that holds no image (modality {_code(modality)})")
    if not is_image:
        # An object without pixels is no image of any kind, unless it was cut before them: its size gives it away.
        kind = Reason.NOT_RADIOGRAPH if "Rows" in elements else Reason.NOT_AN_IMAGE
        raise refusal(kind, f"modality {_code(modality)}: wanted {', '.join(sorted(IMAGE_MODALITIES))}")
    if elements.number("NumberOfFrames", 1) > 1:
        raise refusal(Reason.MULTI_FRAME, f"{elements.number('NumberOfFrames'):.0f} frames: wanted one")
    if elements.text("BurnedInAnnotation") == "YES":
        raise refusal(Reason.BURNED_IN_ANNOTATION, "the header says that text is burned into the pixels")
    for_processing = sop_class == uid.DigitalXRayImageStorageForProcessing
    if for_processing or elements.text("PresentationIntentType") == "FOR PROCESSING":
        raise refusal(Reason.UNSUPPORTED_MODE, "a raw detector image for processing: send the one for presentation")
    if "FloatPixelData" in elements or "DoubleFloatPixelData" in elements:
        raise refusal(Reason.UNSUPPORTED_MODE, "floating point pixels: wanted integers")
    if "PixelData" not in elements:
        raise refusal(Reason.TRUNCATED, "the DICOM object ends before its pixel data")


def _layout(elements: Elements) -> Layout:
    """Gather and check what the pixel data must look like."""
    photometric = elements.text("PhotometricInterpretation")
    allocated, stored = int(elements.number("BitsAllocated")), int(elements.number("BitsStored"))
    highest = int(elements.number("HighBit", stored - 1))
    samples = int(elements.number("SamplesPerPixel", 1))
    if samples == 1 and photometric in ("MONOCHROME1", "MONOCHROME2"):
        fits = allocated in (8, 16)
    else:
        fits = samples == 3 and photometric in _COLOUR and allocated == stored == 8
    if not fits or not stored <= highest + 1 <= allocated or stored < 1:
        detail = f"{_code(photometric)}, {samples} sample(s) of {stored} in {allocated} bits, highest bit {highest}: "
        raise refusal(Reason.UNSUPPORTED_MODE, detail + "wanted MONOCHROME1 or 2 in 8 or 16 bits, or colour in 8")
    return Layout(
        rows=int(elements.number("Rows")),
        columns=int(elements.number("Columns")),
        samples=samples,
        bits_allocated=allocated,
        bits_used=highest + 1,
        signed=elements.number("PixelRepresentation", 0) == 1,
        photometric=photometric,
        planar=int(elements.number("PlanarConfiguration", 0)),
    )


def _samples(elements: Elements, layout: Layout) -> Samples:
    """Return stored samples as the transfer syntax holds them."""
    data = elements.data("PixelData")
    if elements.syntax in _NATIVE:
        size = layout.rows * layout.columns * layout.samples * layout.bits_allocated // 8
        if layout.photometric == "YBR_FULL_422":
            size = size * 2 // 3
        if len(data) < size:
            raise refusal(Reason.TRUNCATED, f"{len(data)} bytes of pixel data: wanted {size}")
        return run_decoder(data[: size + size % 2], elements.syntax, layout)
    if not elements.encapsulated:
        raise refusal(Reason.CORRUPT, f"transfer syntax {elements.syntax.name}, but the pixel data is not encapsulated")
    frame = get_frame(data, 0, number_of_frames=1)
    return decode(frame, elements.syntax, layout)


def _grey(elements: Elements, layout: Layout, samples: Samples) -> Grey:
    """Look up the grey of every sample; a value outside of the stored bits counts as the nearest inside."""
    if layout.samples == 3:
        return grey(samples)
    bits = int(elements.number("BitsStored"))
    samples = samples >> (layout.bits_used - bits)  # left-justified samples
    table = grey_table(elements, bits, signed=layout.signed)
    index = samples.astype(np.int32) + 2 ** (bits - 1) if layout.signed else samples
    return np.take(table, index, mode="clip")


def _view(elements: Elements) -> str | None:
    """Return the view position if it is one of the standard's words; free text could name a person."""
    view = elements.text("ViewPosition")
    return view if view in _VIEWS else None


def _orientation(elements: Elements) -> str | None:
    """Return where rows and columns point, in the standard's letters (PS3.3 C.7.6.1.1.1); None for anything else."""
    pointed = "\\".join(elements.texts("PatientOrientation"))
    return pointed if re.fullmatch(r"[APRLHF]{1,3}\\[APRLHF]{1,3}", pointed) else None


def _spacing(elements: Elements) -> float | None:
    """Return the spacing at the detector in mm, else the calibrated one; None unless positive and square."""
    for keyword in ("ImagerPixelSpacing", "PixelSpacing"):
        spacing = elements.numbers(keyword)
        if len(spacing) == 2 and min(spacing) > 0 and np.isfinite(spacing).all():
            square = max(spacing) - min(spacing) <= _SQUARE_WITHIN * max(spacing)
            return sum(spacing) / 2 if square else None
    return None


def _code(value: str) -> str:
    """Quote a header's code word only if the standard has it: free text in its place may name a patient."""
    return value if value in _TERMS else "unknown"


# PS3.3 C.7.3.1.1.1 (those met in archives) and C.7.6.3.1.2
_TERMS = {
    "AR", "AU", "BI", "CR", "CT", "DX", "DOC", "ECG", "ES", "EPS", "GM", "HC", "IO", "IVOCT", "IVUS", "KO", "MG", "MR",
    "NM", "OAM", "OCT", "OP", "OPT", "OT", "PR", "PT", "PX", "REG", "RF", "RG", "RTDOSE", "RTIMAGE", "RTPLAN",
    "RTRECORD", "RTSTRUCT", "RWV", "SC", "SEG", "SM", "SMR", "SR", "TG", "US", "VA", "XA", "XC",
    "MONOCHROME1", "MONOCHROME2", "RGB", "PALETTE COLOR", "YBR_FULL", "YBR_FULL_422", "YBR_PARTIAL_420", "YBR_ICT",
    "YBR_RCT",
}  # fmt: skip
_NATIVE = {
    uid.ImplicitVRLittleEndian,
    uid.ExplicitVRLittleEndian,
    uid.ExplicitVRBigEndian,
    uid.DeflatedExplicitVRLittleEndian,
}
