"""Why bytes that no reader takes are refused, by their content; a key's suffix is never looked at.

In: the bytes of one object. Out: a refusal. It decodes nothing.
"""

from __future__ import annotations

import re

from covseg.errors import RadiographRefused, Reason, Stage

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
JPEG_SIGNATURE = b"\xff\xd8\xff"

# Images of a format that is not read. They may well be images, so they are quarantined, not passed over.
_FOREIGN = {
    "BMP": rb"BM.{4}\0{4}",
    "WebP": rb"RIFF.{4}WEBP",
    "HEIF": rb".{4}ftyp(heic|heix|mif1|avif)",
    "GIF": rb"GIF8",
    "TIFF": rb"II\*\0",
    "TIFF, big-endian": rb"MM\0\*",
    "BigTIFF": rb"II\+\0",
    "JPEG 2000": rb"\0\0\0\x0cjP  ",
    "JPEG 2000 codestream": rb"\xff\x4f\xff\x51",
    "JPEG XL": rb"\xff\x0a",
    "Photoshop": rb"8BPS",
}


def refusal(reason: Reason, detail: str) -> RadiographRefused:
    """Return the refusal of an image that cannot be read; `detail` says what was found and what was wanted."""
    return RadiographRefused(reason, Stage.READ, detail)


def unknown_format(data: bytes) -> RadiographRefused:
    """Return the refusal of bytes that no reader takes.

    ``empty``; ``corrupt`` (nothing but zero bytes, or a damaged PNG signature); ``truncated`` (cut inside a signature);
    ``unreadable_format`` (an image of another format); ``not_an_image`` (the rest).
    """
    if not data:
        return refusal(Reason.EMPTY, "0 bytes")
    if len(data) < 8 and (PNG_SIGNATURE.startswith(data) or JPEG_SIGNATURE.startswith(data)):
        return refusal(Reason.TRUNCATED, f"{len(data)} bytes: the object ends inside its signature")
    if data.count(0) == len(data):
        return refusal(Reason.CORRUPT, "every byte is 0: the object was never filled")
    if data[1:4] == b"PNG":
        return refusal(Reason.CORRUPT, "damaged PNG signature, as a transfer in text mode leaves it")
    if name := next((name for name, start in _FOREIGN.items() if re.match(start, data, re.DOTALL)), None):
        return refusal(Reason.UNREADABLE_FORMAT, f"a {name} image: wanted PNG, JPEG or DICOM")
    return refusal(Reason.NOT_AN_IMAGE, "no PNG, JPEG or DICOM signature")
