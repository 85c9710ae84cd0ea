"""Why bytes that no reader takes are refused, by their content; a key's suffix is never looked at.

In: the bytes of one object. Out: a refusal. It decodes nothing.
"""

from __future__ import annotations

from covseg.errors import RadiographRefused, Reason, Stage

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
JPEG_SIGNATURE = b"\xff\xd8\xff"

# Images of a format that is not read. They may well be images, so they are quarantined, not passed over.
_FOREIGN = {
    "GIF": b"GIF8",
    "TIFF": b"II*\0",
    "TIFF, big-endian": b"MM\0*",
    "BigTIFF": b"II+\0",
    "JPEG 2000": b"\0\0\0\x0cjP  ",
    "JPEG 2000 codestream": b"\xff\x4f\xff\x51",
    "JPEG XL": b"\xff\x0a",
    "Photoshop": b"8BPS",
}


def refusal(reason: Reason, detail: str) -> RadiographRefused:
    """Return the refusal of an image that cannot be read; `detail` says what was found and what was wanted."""
    return RadiographRefused(reason, Stage.READ, detail)


def unknown_format(data: bytes) -> RadiographRefused:
    """Return the refusal of bytes that no reader takes.

    Parameters
    ----------
    data : bytes
        The whole object.

    Returns
    -------
    RadiographRefused
        ``empty``; ``corrupt`` (nothing but zero bytes, or a damaged PNG signature); ``truncated`` (cut inside a
        signature); ``unreadable_format`` (an image of another format); ``not_an_image`` (the rest).
    """
    if not data:
        return refusal(Reason.EMPTY, "0 bytes")
    if len(data) < 8 and (PNG_SIGNATURE.startswith(data) or JPEG_SIGNATURE.startswith(data)):
        return refusal(Reason.TRUNCATED, f"{len(data)} bytes: the object ends inside its signature")
    if data.count(0) == len(data):
        return refusal(Reason.CORRUPT, "every byte is 0: the object was never filled")
    if data[1:4] == b"PNG":
        return refusal(Reason.CORRUPT, "damaged PNG signature, as a transfer in text mode leaves it")
    if name := _foreign_format(data):
        return refusal(Reason.UNREADABLE_FORMAT, f"a {name} image: wanted PNG, JPEG or DICOM")
    return refusal(Reason.NOT_AN_IMAGE, "no PNG, JPEG or DICOM signature")


def _foreign_format(data: bytes) -> str | None:
    if data[:2] == b"BM" and data[6:10] == bytes(4):
        return "BMP"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WebP"
    if data[4:8] == b"ftyp" and data[8:12] in (b"heic", b"heix", b"mif1", b"avif"):
        return "HEIF"
    return next((name for name, signature in _FOREIGN.items() if data.startswith(signature)), None)
