"""PNG: every mode, told by rule; damage is found before the decoder sees it.

In: the bytes of one PNG. Out: pixels alone. OpenCV decodes a cut or damaged file and only prints about it, so
the chunks, their checksums and the claimed size are checked here first (0.1 ms); its samples equal Pillow's, which
would reduce 16-bit colour to 8.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

import cv2
import numpy as np

from covseg.errors import Reason
from covseg.stages.read.grey import DecodedImage, Samples, check_size, grey
from covseg.stages.read.orientation import orient
from covseg.stages.read.sniff import PNG_SIGNATURE, refusal

_HEAD = struct.Struct(">I")
# The pixels are in these. The others (transparency, gamma, profiles, text) must not change or delay the reading.
_CRITICAL = (b"IHDR", b"PLTE", b"IDAT", b"IEND")


def is_png(data: bytes) -> bool:
    """Detect a PNG by its signature."""
    return data.startswith(PNG_SIGNATURE)


def read_png(data: bytes) -> DecodedImage:
    """Decode one PNG.

    Grey of 1 to 16 bits, palette, colour and their variants with alpha. Alpha and transparency are dropped: what the
    pixel holds counts, not how a viewer would blend it. An EXIF orientation is applied.

    Raises
    ------
    RadiographRefused
        ``not_radiograph`` (clearly coloured), ``truncated``, ``corrupt`` (a checksum, a missing part, a damaged
        stream), ``multi_frame`` (an animation), ``too_large``, ``too_small``.
    """
    parts: list[bytes | memoryview] = [PNG_SIGNATURE]
    exif = b""
    for kind, payload, whole in _chunks(data):
        if kind == b"IHDR":
            check_size(int.from_bytes(payload[:4], "big"), int.from_bytes(payload[4:8], "big"))
        elif len(parts) == 1:
            raise refusal(Reason.CORRUPT, "the PNG does not start with its header chunk")
        if kind == b"acTL":
            raise refusal(Reason.MULTI_FRAME, "an animated PNG: wanted one image")
        if kind == b"eXIf":
            exif = bytes(payload)
        if kind in _CRITICAL:
            parts.append(whole)
    return DecodedImage(grey(orient(_decode(b"".join(parts)), exif)))


def _chunks(data: bytes) -> Iterator[tuple[bytes, memoryview, memoryview]]:
    """Yield kind, payload and the whole of each chunk up to the end chunk, each checksum checked."""
    view = memoryview(data)
    start = len(PNG_SIGNATURE)
    kind = b""
    while kind != b"IEND":
        if start + 12 > len(data) or (end := start + 12 + _HEAD.unpack_from(data, start)[0]) > len(data):
            raise refusal(Reason.TRUNCATED, f"the PNG ends at byte {len(data)}, inside a chunk")
        kind = data[start + 4 : start + 8]
        if zlib.crc32(view[start + 4 : end - 4]) != _HEAD.unpack_from(data, end - 4)[0]:
            raise refusal(Reason.CORRUPT, f"wrong checksum in the PNG chunk at byte {start}")
        yield kind, view[start + 8 : end - 4], view[start:end]
        start = end


def _decode(png: bytes) -> Samples:
    samples = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_UNCHANGED)
    if samples is None:
        raise refusal(Reason.CORRUPT, "the PNG's chunks are whole, but its pixels cannot be decoded")
    return samples if samples.ndim == 2 else cv2.cvtColor(samples[..., :3], cv2.COLOR_BGR2RGB)
