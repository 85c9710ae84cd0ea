"""What are these bytes? Judged by content; a key's suffix is never looked at.

In: the bytes of one object. Out: the kind of image, or a refusal. It decodes nothing.
"""

from __future__ import annotations

from typing import Literal

from covseg.errors import RadiographRefused, Reason, Stage

Kind = Literal["png", "jpeg", "dicom"]

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
_VALUE_REPRESENTATIONS = frozenset(
    b"AE AS AT CS DA DS DT FL FD IS LO LT OB OD OF OL OV OW PN SH SL SQ SS ST SV TM UC UI UL UN UR US UT UV".split()
)


def sniff(data: bytes) -> Kind:
    """Tell which stage of the reader these bytes belong to.

    Parameters
    ----------
    data : bytes
        The whole object.

    Returns
    -------
    str
        ``png``, ``jpeg`` or ``dicom``.

    Raises
    ------
    RadiographRefused
        ``empty``; ``corrupt`` (nothing but zero bytes, or a damaged PNG signature); ``truncated`` (cut inside a
        signature); ``unreadable_format`` (an image of another format); ``not_an_image`` (the rest).
    """
    if not data:
        raise RadiographRefused(Reason.EMPTY, Stage.READ, "0 bytes")
    if data.startswith(PNG_SIGNATURE):
        return "png"
    if data.startswith(JPEG_SIGNATURE):
        return "jpeg"
    if data[128:132] == b"DICM" or _starts_like_dicom(data):
        return "dicom"
    raise _refusal(data)


def starts_explicit(data: bytes) -> bool:
    """Tell whether a DICOM element that starts here names its value representation."""
    return data[4:6] in _VALUE_REPRESENTATIONS


def _starts_like_dicom(data: bytes) -> bool:
    """Tell whether a data set starts here without the 128-byte preamble, as old archives store it."""
    if data[:2] == b"\x00\x08":  # big-endian is always explicit
        return starts_explicit(data)
    if data[:2] not in (b"\x08\x00", b"\x02\x00"):
        return False
    return starts_explicit(data) or 0 < int.from_bytes(data[4:8], "little") <= min(len(data), 1024)


def _refusal(data: bytes) -> RadiographRefused:
    if len(data) < 8 and (PNG_SIGNATURE.startswith(data) or JPEG_SIGNATURE.startswith(data)):
        return RadiographRefused(
            Reason.TRUNCATED, Stage.READ, f"{len(data)} bytes: the object ends inside its signature"
        )
    if data.count(0) == len(data):
        return RadiographRefused(Reason.CORRUPT, Stage.READ, "every byte is 0: the object was never filled")
    if data[1:4] == b"PNG":
        return RadiographRefused(
            Reason.CORRUPT, Stage.READ, "damaged PNG signature, as a transfer in text mode leaves it"
        )
    found = _foreign_format(data)
    if found:
        return RadiographRefused(Reason.UNREADABLE_FORMAT, Stage.READ, f"a {found} image: wanted PNG, JPEG or DICOM")
    return RadiographRefused(Reason.NOT_AN_IMAGE, Stage.READ, "no PNG, JPEG or DICOM signature")


def _foreign_format(data: bytes) -> str | None:
    if data[:2] == b"BM" and data[6:10] == bytes(4):
        return "BMP"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WebP"
    if data[4:8] == b"ftyp" and data[8:12] in (b"heic", b"heix", b"mif1", b"avif"):
        return "HEIF"
    return next((name for name, signature in _FOREIGN.items() if data.startswith(signature)), None)
