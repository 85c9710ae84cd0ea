"""Compressed images as DICOM carries them: their own header first, then the fastest decoder of each family.

In: one codestream (JPEG, JPEG lossless, JPEG-LS, JPEG 2000, RLE) or native pixel data, and the layout that it must
have. Out: stored samples. The family is read from the codestream; a header that claims another size than the image's
is refused before the decoder allocates for it. No decoder here is under the GPL.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from pydicom import uid
from pydicom.encaps import encapsulate
from pydicom.pixels.decoders.base import get_decoder
from pydicom.uid import UID

from covseg.errors import Reason
from covseg.stages.read.grey import Samples
from covseg.stages.read.sniff import refusal

END_OF_IMAGE = b"\xff\xd9"
_STANDALONE = {0x01, *range(0xD0, 0xD9)}
_FRAME_HEADERS = {*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC}
_START_OF_SCAN, _EXIF = 0xDA, 0xE1
_JPEG_LS = 0xF7
_ARITHMETIC_OR_HIERARCHICAL = {*range(0xC5, 0xD0)}


@dataclass(frozen=True)
class Layout:
    """What decoded pixel data must look like."""

    rows: int
    columns: int
    samples: int  # per pixel, 1 or 3
    bits_allocated: int
    bits_used: int  # of those allocated, from bit 0 up to the image's highest bit
    signed: bool = False  # two's complement
    photometric: str = "MONOCHROME2"  # DICOM's photometric interpretation
    planar: int = 0  # 1 when colours are stored plane by plane


@dataclass(frozen=True)
class Frame:
    """What a codestream says of itself: JPEG's frame marker (0 for JPEG 2000), bits per sample, size, components."""

    marker: int
    bits: int
    height: int
    width: int
    components: int
    exif: bytes = b""

    @property
    def classic(self) -> bool:
        """True for 8-bit JPEG, baseline or progressive: what every JPEG library reads."""
        return self.marker in (0xC0, 0xC1, 0xC2) and self.bits == 8


def jpeg_frame(data: bytes) -> Frame:
    """Read the headers of a JPEG or JPEG-LS codestream, without decoding.

    Raises
    ------
    RadiographRefused
        ``truncated`` when it ends before its pixels or lacks its end marker; ``corrupt`` when it is no JPEG inside.
    """
    frame, exif, start = None, b"", 2
    while True:
        marker, payload = _segment(data, start)
        if marker in _FRAME_HEADERS and len(payload) >= 6:
            height, width = int.from_bytes(payload[1:3], "big"), int.from_bytes(payload[3:5], "big")
            frame = Frame(marker, payload[0], height, width, payload[5])
        elif marker == _EXIF and payload.startswith(b"Exif\0\0"):
            exif = payload
        elif marker == _START_OF_SCAN:
            break
        start += 2 if marker in _STANDALONE or marker == 0xFF else 4 + len(payload)
    if frame is None:
        raise refusal(Reason.CORRUPT, "a JPEG scan without a frame header before it")
    if data.find(END_OF_IMAGE, start) < 0:
        raise refusal(Reason.TRUNCATED, "the JPEG has no end marker")
    return replace(frame, exif=exif)


def _segment(data: bytes, start: int) -> tuple[int, bytes]:
    """Return marker and payload of the segment at `start`; the payload is empty for a fill byte or a lone marker."""
    if start + 4 > len(data):
        raise refusal(Reason.TRUNCATED, f"the JPEG ends at byte {len(data)}, inside its headers")
    if data[start] != 0xFF:
        raise refusal(Reason.CORRUPT, f"no JPEG marker at byte {start}")
    marker = data[start + 1]
    if marker == 0xFF or marker in _STANDALONE:
        return marker, b""
    length = int.from_bytes(data[start + 2 : start + 4], "big")
    if start + 2 + length > len(data):
        raise refusal(Reason.TRUNCATED, f"the JPEG ends at byte {len(data)}, inside its headers")
    return marker, data[start + 4 : start + 2 + length]


def jpeg2000_frame(data: bytes) -> Frame:
    """Read the size segment of a JPEG 2000 codestream, bare or in its file format, without decoding.

    Raises
    ------
    RadiographRefused
        ``corrupt`` without a codestream; ``truncated`` without its end marker.
    """
    start = data.find(b"\xff\x4f\xff\x51")
    if start < 0 or len(data) < start + 43:
        raise refusal(Reason.CORRUPT, "no JPEG 2000 codestream in the pixel data")
    if not data.rstrip(b"\0\xff").endswith(END_OF_IMAGE):
        raise refusal(Reason.TRUNCATED, "the JPEG 2000 codestream has no end marker")
    right, bottom, left, top = np.frombuffer(data, ">u4", 4, start + 8).tolist()
    components = int.from_bytes(data[start + 40 : start + 42], "big")
    return Frame(0, (data[start + 42] & 0x7F) + 1, bottom - top, right - left, components)


def decode(frame: bytes, syntax: UID, layout: Layout) -> Samples:
    """Decode one compressed frame.

    Parameters
    ----------
    syntax : UID
        DICOM's name of the compression. Among the JPEG processes the codestream's own header decides.
    layout : Layout
        What must come out.

    Returns
    -------
    ndarray of integers, shape (H, W) or (H, W, 3)
        Stored samples, colour as R, G, B.

    Raises
    ------
    RadiographRefused
        ``missing_decoder``, ``corrupt``, ``truncated``, ``unsupported_mode``.
    """
    decoder, plugin = _decoder(frame, syntax, layout)
    return run_decoder(encapsulate([frame]), decoder, layout, plugin)


def run_decoder(data: bytes, syntax: UID, layout: Layout, plugin: str = "") -> Samples:
    """Run one of pydicom's decoders on pixel data as it stands; ``missing_decoder`` when its plugin is not there."""
    decoder = get_decoder(syntax)
    if plugin and plugin not in decoder.available_plugins:
        raise refusal(
            Reason.MISSING_DECODER,
            f"{plugin} is not installed, or lacks its part for {syntax.name}: install covseg's locked requirements",
        )
    options: dict[str, Any] = {
        "rows": layout.rows,
        "columns": layout.columns,
        "samples_per_pixel": layout.samples,
        "bits_allocated": layout.bits_allocated,
        "bits_stored": layout.bits_used,
        "pixel_representation": int(layout.signed),
        "photometric_interpretation": layout.photometric,
        "planar_configuration": layout.planar,
        "number_of_frames": 1,
        "pixel_keyword": "PixelData",
        "decoding_plugin": plugin,
    }
    return decoder.as_array(data, **options)[0]


def _decoder(frame: bytes, syntax: UID, layout: Layout) -> tuple[UID, str]:
    """Choose decoder and plugin, fastest first where several exist; check the codestream's claims on the way."""
    if syntax == uid.RLELossless:
        return syntax, "pylibjpeg"
    if syntax in uid.JPEG2000TransferSyntaxes:
        _check(jpeg2000_frame(frame), layout)
        return syntax, "pylibjpeg"
    if not str(syntax).startswith("1.2.840.10008.1.2.4.") or syntax not in _JPEG_FAMILY:
        detail = (
            f"no decoder for transfer syntax {syntax.name}: convert the image to one of DICOM's JPEG or RLE syntaxes"
        )
        raise refusal(Reason.MISSING_DECODER, detail)
    header = jpeg_frame(frame)
    _check(header, layout)
    if header.marker == _JPEG_LS:
        return uid.JPEGLSLossless, "pyjpegls"
    if header.classic:
        return uid.JPEGBaseline8Bit, "pillow"
    if header.marker in _ARITHMETIC_OR_HIERARCHICAL:
        raise refusal(Reason.MISSING_DECODER, "no decoder for arithmetic-coded or hierarchical JPEG")
    # GDCM reads lossless and 12-bit JPEG alike by their headers; under the 12-bit syntax's own name pydicom,
    # without need, keeps it from doing so.
    return uid.JPEGLossless, "gdcm"


def _check(frame: Frame, layout: Layout) -> None:
    """Refuse a codestream that would decode to something else than the image's header says."""
    claimed = (frame.height, frame.width, frame.components)
    wanted = (layout.rows, layout.columns, layout.samples)
    if claimed != wanted:
        raise refusal(
            Reason.CORRUPT,
            f"the codestream claims (height, width, components) {claimed}, the image's header {wanted}",
        )
    if frame.bits > 16:
        raise refusal(Reason.UNSUPPORTED_MODE, f"{frame.bits} bits per sample: wanted at most 16")


# Process 1 to 29 of JPEG (.50 to .66), its lossless first-order prediction (.70), JPEG-LS (.80, .81).
_JPEG_FAMILY = {UID(f"1.2.840.10008.1.2.4.{number}") for number in (*range(50, 67), 70, 80, 81)}
