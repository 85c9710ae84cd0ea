"""JPEG files: 8-bit by Pillow, 12-bit, lossless and JPEG-LS by the decoders that DICOM brings along.

In: the bytes of one JPEG. Out: pixels alone. JPEG has no checksum: damage inside the compressed pixels shows only
where it breaks the stream.
"""

from __future__ import annotations

import io

import numpy as np
from PIL.JpegImagePlugin import JpegImageFile
from pydicom.uid import JPEGLossless

from covseg.errors import Reason
from covseg.stages.read.codestream import Frame, Layout, decode, jpeg_frame
from covseg.stages.read.grey import DecodedImage, Samples, check_size, grey
from covseg.stages.read.orientation import orient
from covseg.stages.read.sniff import JPEG_SIGNATURE, refusal


def is_jpeg(data: bytes) -> bool:
    """Detect a JPEG by its signature."""
    return data.startswith(JPEG_SIGNATURE)


def read_jpeg(data: bytes) -> DecodedImage:
    """Decode one JPEG.

    Grey, colour, and CMYK as printers write it (Adobe's inverted values), which becomes RGB. An EXIF orientation is
    applied.

    Raises
    ------
    RadiographRefused
        ``not_radiograph`` (clearly coloured), ``truncated``, ``corrupt``, ``too_large``, ``too_small``,
        ``unsupported_mode``, ``missing_decoder``.
    """
    frame = jpeg_frame(data)
    if frame.height == 0:
        raise refusal(Reason.UNSUPPORTED_MODE, "the JPEG states its height only behind its pixels")
    check_size(frame.width, frame.height)
    if not frame.classic:
        return DecodedImage(grey(orient(_decode_rare(data, frame), frame.exif)))
    # Pillow would look into the EXIF block too, and warn about it: it gets zeros instead.
    plain = data.replace(frame.exif, bytes(len(frame.exif)), 1) if frame.exif else data
    return DecodedImage(grey(orient(_decode_classic(plain), frame.exif)))


def _decode_classic(data: bytes) -> Samples:
    try:
        # Not Image.open: it also tries panoramas and stereo pairs, and warns about sizes that were checked above.
        with JpegImageFile(io.BytesIO(data)) as image:
            return np.asarray(image if image.mode in ("L", "RGB") else image.convert("RGB"))
    except OSError as error:
        # Pillow raises a bare OSError for both, without errno: its words are all that tells them apart.
        reason = Reason.TRUNCATED if "truncated" in str(error) else Reason.CORRUPT
        raise refusal(reason, "the JPEG's pixels end early or cannot be decoded") from error


def _decode_rare(data: bytes, frame: Frame) -> Samples:
    if frame.components != 1:
        raise refusal(
            Reason.UNSUPPORTED_MODE,
            f"{frame.components} components of {frame.bits} bits, JPEG marker {frame.marker:#x}: wanted grey",
        )
    allocated = 8 if frame.bits <= 8 else 16
    layout = Layout(frame.height, frame.width, 1, allocated, frame.bits)
    return decode(data, JPEGLossless, layout)
