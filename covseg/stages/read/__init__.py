"""Bytes to pixels: PNG, JPEG and DICOM, told apart by content, never by suffix.

In: the bytes of one object. Out: a `Radiograph`, or `RadiographRefused` with a reason of the closed set. It knows
nothing of stores, models or scores.

What becomes of each input:

====================================================  ==============================================================
PNG 8 bit, grey                                       value / 255
PNG 16 bit                                            value / full scale of the smallest usual depth that holds it
PNG 1, 2, 4 bit, palette                              expanded; a few flat levels: ``not_radiograph``
PNG with alpha or transparency                        alpha dropped
colour, R = G = B or tinted                           luma
colour, clearly coloured                              ``not_radiograph``
JPEG 8 bit, CMYK, 12 bit, lossless, JPEG-LS           read; EXIF orientation applied
DICOM CR, DX, RG                                      modality, VOI, polarity; view and spacing from the header
DICOM of another modality / without pixels            ``not_radiograph`` / ``not_an_image``
DICOM for processing, palette, float pixels           ``unsupported_mode``
DICOM compressed with no decoder here                 ``missing_decoder``
DICOM with BurnedInAnnotation = YES                   ``burned_in_annotation``
animated PNG, DICOM of several frames                 ``multi_frame``
zero bytes / nothing but zeros                        ``empty`` / ``corrupt``
text, SVG, PDF, archives, anything unknown            ``not_an_image``
GIF, TIFF, BMP, WebP, JPEG 2000 file, HEIF, ...       ``unreadable_format``: an image, perhaps an image
ends early                                            ``truncated``
wrong checksum, broken stream, broken header          ``corrupt``
over 64 million pixels, by the header                 ``too_large``, before anything is decoded
under 64 pixels on a side                             ``too_small``
constant or nearly so                                 ``no_contrast``; a PNG or JPEG of zeros ``not_radiograph``
====================================================  ==============================================================
"""

from __future__ import annotations

import hashlib

from covseg.errors import RadiographRefused, Reason, Stage
from covseg.records import Radiograph
from covseg.stages.read.dicom import DicomImage, read_dicom
from covseg.stages.read.grey import check_contrast, grey
from covseg.stages.read.jpeg import read_jpeg
from covseg.stages.read.png import read_png
from covseg.stages.read.sniff import sniff

__all__ = ["read"]


def read(data: bytes) -> Radiograph:
    """Decode one image.

    Parameters
    ----------
    data : bytes
        The whole object.

    Returns
    -------
    Radiograph
        Pixels float32 in [0, 1], shape (H, W), bone bright.

    Raises
    ------
    RadiographRefused
        For anything that is not one readable image; nothing else is raised, whatever the bytes.
    """
    kind = sniff(data)
    try:
        image = _image(kind, data)
    except (RadiographRefused, KeyboardInterrupt, SystemExit):
        raise
    except MemoryError as error:
        raise RadiographRefused(Reason.TOO_LARGE, Stage.READ, f"no memory to decode this {kind} image") from error
    except BaseException as error:  # a panic of the RLE decoder, written in Rust, is no Exception
        # A decoder's own words may quote the header: its class is enough, the rest is chained.
        detail = f"the {kind} decoder failed: {type(error).__name__}"
        raise RadiographRefused(Reason.CORRUPT, Stage.READ, detail) from error
    check_contrast(image.pixels, kind)
    return Radiograph(
        image.pixels,
        hashlib.sha256(data).hexdigest(),
        image.view_position,
        image.pixel_spacing_mm,
        kind,
        image.orientation,
    )


def _image(kind: str, data: bytes) -> DicomImage:
    if kind == "dicom":
        return read_dicom(data)
    return DicomImage(grey(read_png(data) if kind == "png" else read_jpeg(data)), None, None, None)
