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

Notes
-----
A format is one entry of `READERS`: a name, a test of the bytes, and a function from bytes to `DecodedImage` that
raises a `refusal` for what it cannot read faithfully, and calls `check_size` before it decodes. So a format from
outside is one line, in a module that every process of a run imports::

    READERS.append(Reader("pgm", lambda data: data.startswith(b"P5"), read_pgm))
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import NamedTuple

from covseg.errors import RadiographRefused, Reason
from covseg.records import Radiograph
from covseg.stages.read.dicom import read_dicom
from covseg.stages.read.elements import is_dicom
from covseg.stages.read.grey import DecodedImage, check_contrast, check_size
from covseg.stages.read.jpeg import is_jpeg, read_jpeg
from covseg.stages.read.png import is_png, read_png
from covseg.stages.read.sniff import refusal, unknown_format

__all__ = ["READERS", "DecodedImage", "Reader", "check_size", "read", "refusal"]


class Reader(NamedTuple):
    """How one format is read.

    Attributes
    ----------
    name : str
        Stands as `kind` in the `Radiograph`.
    matches : callable
        Detects the format from the bytes of an object; cheap, decodes nothing.
    read : callable
        Decodes the bytes.
    """

    name: str
    matches: Callable[[bytes], bool]
    read: Callable[[bytes], DecodedImage]


# The first that matches reads.
READERS = [
    Reader("png", is_png, read_png),
    Reader("jpeg", is_jpeg, read_jpeg),
    Reader("dicom", is_dicom, read_dicom),
]


def read(data: bytes) -> Radiograph:
    """Decode one image from the whole of its bytes.

    Returns
    -------
    Radiograph
        Grey values, shape (H, W), bone bright.

    Raises
    ------
    RadiographRefused
        For anything that is not one readable image; nothing else is raised, whatever the bytes.
    """
    reader = next((reader for reader in READERS if reader.matches(data)), None)
    if reader is None:
        raise unknown_format(data)
    kind = reader.name
    try:
        image = reader.read(data)
    except (RadiographRefused, KeyboardInterrupt, SystemExit):
        raise
    except MemoryError as error:
        raise refusal(Reason.TOO_LARGE, f"no memory to decode this {kind} image") from error
    except BaseException as error:  # a panic of the RLE decoder, written in Rust, is no Exception
        # A decoder's own words may quote the header: its class is enough, the rest is chained.
        raise refusal(Reason.CORRUPT, f"the {kind} decoder failed: {type(error).__name__}") from error
    check_contrast(image.samples, kind)
    return Radiograph(
        image.samples,
        hashlib.sha256(data).hexdigest(),
        image.view_position,
        image.pixel_spacing_mm,
        kind,
        image.orientation,
    )
