"""Inputs that must be refused, each with its reason: made here, small, without any patient's data.

In: nothing. Out: file names, bytes and the reason that `covseg.stages.read.read` must give. They feed the tests, the
demo and the acceptance at a site: put them into one folder, score it, and compare the rows. What only the input
filter can tell from the pixels of a readable image (a lateral image, a CT slice, noise) is not made here.
"""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydicom import uid
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate

from covseg.errors import Reason

Changes = dict[str, object]
BadInputs = dict[str, tuple[bytes, Reason]]
_SIDE = 96


def bad_inputs() -> BadInputs:
    """Make every input that the reader must refuse.

    Returns
    -------
    dict
        File name to its bytes and the expected reason. Suffixes lie on purpose. The same bytes at every call.
    """
    return {**_strangers(), **_pngs(), **_jpegs(), **_dicoms()}


def image(side: int = _SIDE) -> NDArray[np.uint8]:
    """Return a grey gradient with texture, shape (side, side): enough of an image for the reader."""
    y, x = np.mgrid[:side, :side] / side
    texture = np.random.default_rng(7).normal(0, 6, (side, side))
    return np.clip(60 + 120 * x * y + 40 * np.sin(9 * y) + texture, 0, 255).astype(np.uint8)


def _strangers() -> BadInputs:
    """Make what is no image of a format that is read."""
    return {
        "zero_bytes.png": (b"", Reason.EMPTY),
        "only_zeros.dcm": (bytes(4096), Reason.CORRUPT),
        "text.png": (b"a note, not a scan\n" * 20, Reason.NOT_AN_IMAGE),
        "vector.png": (b'<svg xmlns="http://www.w3.org/2000/svg" width="96" height="96"/>', Reason.NOT_AN_IMAGE),
        "document.dcm": (b"%PDF-1.7\n%%EOF\n", Reason.NOT_AN_IMAGE),
        "archive.dcm": (b"PK\x05\x06" + bytes(18), Reason.NOT_AN_IMAGE),
        "gif_renamed.png": (_encode(image(), "GIF"), Reason.UNREADABLE_FORMAT),
        "tiff_renamed.png": (_encode(image(), "TIFF"), Reason.UNREADABLE_FORMAT),
        "bmp_renamed.jpg": (_encode(image(), "BMP"), Reason.UNREADABLE_FORMAT),
        "webp_renamed.jpg": (_encode(image(), "WEBP"), Reason.UNREADABLE_FORMAT),
        "jpeg2000_renamed.jpg": (_encode(image(), "JPEG2000"), Reason.UNREADABLE_FORMAT),
    }


def _pngs() -> BadInputs:
    good = _png(image())
    flipped = bytearray(good)
    flipped[len(good) // 2] ^= 1
    mask = np.where(image() > 120, 255, 0).astype(np.uint8)
    speck = np.full((_SIDE, _SIDE), 100, np.uint8)
    speck[5, 5] = 101
    return {
        "signature_only.png": (good[:5], Reason.TRUNCATED),
        "truncated.png": (good[: len(good) // 2], Reason.TRUNCATED),
        "end_chunk_missing.png": (good[:-12], Reason.TRUNCATED),
        "signature_in_text_mode.png": (b"\x89PNG\n\x1a\n" + good[8:], Reason.CORRUPT),
        "checksum_broken.png": (bytes(flipped), Reason.CORRUPT),
        "stream_ends_early.png": (_png(image(), height=2 * _SIDE), Reason.CORRUPT),
        "animated.png": (_png(image(), before=_chunk(b"acTL", struct.pack(">II", 2, 0))), Reason.MULTI_FRAME),
        "header_claims_20000.png": (_png(image(), width=20_000, height=20_000), Reason.TOO_LARGE),
        "bomb_144_megapixels.png": (_flat_png(12_000), Reason.TOO_LARGE),
        "one_pixel.png": (_png(image(1)), Reason.TOO_SMALL),
        "too_small.png": (_png(image(63)), Reason.TOO_SMALL),
        "constant.png": (_png(np.full((_SIDE, _SIDE), 128, np.uint8)), Reason.NO_CONTRAST),
        "almost_constant.png": (_png(speck), Reason.NO_CONTRAST),
        "mask.png": (_png(mask), Reason.NOT_RADIOGRAPH),
        "empty_mask.png": (_png(np.zeros((_SIDE, _SIDE), np.uint8)), Reason.NOT_RADIOGRAPH),
        "label_map.png": (_png(mask // 255 + mask // 128), Reason.NOT_RADIOGRAPH),
        "one_bit.png": (_encode(mask > 0, "PNG"), Reason.NOT_RADIOGRAPH),
        "coloured.png": (_encode(_coloured(), "PNG"), Reason.NOT_RADIOGRAPH),
    }


def _jpegs() -> BadInputs:
    good = _encode(image(), "JPEG")
    frame = good.index(b"\xff\xc0") + 5  # height and width follow the marker, the length and the precision
    huge = good[:frame] + struct.pack(">HH", 20_000, 20_000) + good[frame + 4 :]
    flat = np.full((_SIDE, _SIDE), 40, np.uint8)
    return {
        "signature_only.jpg": (good[:2], Reason.TRUNCATED),
        "headers_only.jpg": (good[:frame], Reason.TRUNCATED),
        "truncated.jpg": (good[: len(good) * 2 // 3], Reason.TRUNCATED),
        "end_marker_missing.jpg": (good[:-2], Reason.TRUNCATED),
        "headers_overwritten.jpg": (good[:20] + bytes(40) + good[60:], Reason.CORRUPT),
        "header_claims_20000.jpg": (huge, Reason.TOO_LARGE),
        "one_pixel.jpg": (_encode(image(1), "JPEG"), Reason.TOO_SMALL),
        "constant.jpg": (_encode(flat, "JPEG"), Reason.NO_CONTRAST),
        "photograph_in_colour.jpg": (_encode(_coloured(), "JPEG"), Reason.NOT_RADIOGRAPH),
    }


def _dicoms() -> BadInputs:
    good = _dicom()
    jpeg = encapsulate([_encode(image(), "JPEG")])
    other_size = encapsulate([_encode(image(2 * _SIDE), "JPEG")])
    no_image: Changes = {"Modality": None, "Rows": None, "Columns": None, "PixelData": None}
    return {
        "truncated.dcm": (good[: len(good) // 2], Reason.TRUNCATED),
        "header_truncated.dcm": (good[:200], Reason.TRUNCATED),
        "pixels_missing.dcm": (_dicom(PixelData=None), Reason.TRUNCATED),
        "deflated_truncated.dcm": (_dicom(syntax=uid.DeflatedExplicitVRLittleEndian)[:-400], Reason.TRUNCATED),
        "pixels_not_encapsulated.dcm": (_relabelled(good), Reason.CORRUPT),
        "jpeg_of_another_size.dcm": (_dicom(syntax=uid.JPEGBaseline8Bit, PixelData=other_size), Reason.CORRUPT),
        "jpeg2000_without_codestream.dcm": (_dicom(syntax=uid.JPEG2000Lossless, PixelData=jpeg), Reason.CORRUPT),
        "directory.dcm": (_dicom(no_image, SOPClassUID=uid.MediaStorageDirectoryStorage), Reason.NOT_AN_IMAGE),
        "structured_report.dcm": (_dicom(no_image, SOPClassUID=uid.EnhancedSRStorage, Modality="SR"),
                                  Reason.NOT_AN_IMAGE),
        "segmentation.dcm": (_dicom(SOPClassUID=uid.SegmentationStorage, Modality="SEG"), Reason.NOT_AN_IMAGE),
        "computed_tomography.dcm": (_dicom(SOPClassUID=uid.CTImageStorage, Modality="CT"), Reason.NOT_RADIOGRAPH),
        "two_frames.dcm": (_dicom(NumberOfFrames=2, PixelData=2 * image().tobytes()), Reason.MULTI_FRAME),
        "burned_in_text.dcm": (_dicom(BurnedInAnnotation="YES"), Reason.BURNED_IN_ANNOTATION),
        "no_decoder.dcm": (_dicom(syntax=uid.MPEG2MPML, PixelData=jpeg), Reason.MISSING_DECODER),
        "palette.dcm": (_dicom(PhotometricInterpretation="PALETTE COLOR"), Reason.UNSUPPORTED_MODE),
        "for_processing.dcm": (_dicom(SOPClassUID=uid.DigitalXRayImageStorageForProcessing), Reason.UNSUPPORTED_MODE),
        "header_claims_20000.dcm": (_dicom(Rows=20_000, Columns=20_000), Reason.TOO_LARGE),
        "deflated_bomb.dcm": (_deflated_bomb(), Reason.TOO_LARGE),
        "one_pixel.dcm": (_dicom(Rows=1, Columns=1, PixelData=b"\x07\0"), Reason.TOO_SMALL),
        "constant.dcm": (_dicom(PixelData=bytes(_SIDE * _SIDE)), Reason.NO_CONTRAST),
    }  # fmt: skip


def _coloured() -> NDArray[np.uint8]:
    return np.stack([image(), image()[::-1], 255 - image()], axis=-1)


def _encode(pixels: NDArray[Any], kind: str) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


def _png(pixels: NDArray[np.uint8], width: int | None = None, height: int | None = None, before: bytes = b"") -> bytes:
    """Encode 8-bit grey by hand, so that the header may lie; `before` goes between header and pixels."""
    rows = b"".join(b"\0" + row.tobytes() for row in pixels)
    size = struct.pack(">II", width or pixels.shape[1], height or pixels.shape[0])
    header = _chunk(b"IHDR", size + b"\x08\0\0\0\0")
    return b"\x89PNG\r\n\x1a\n" + header + before + _chunk(b"IDAT", zlib.compress(rows)) + _chunk(b"IEND", b"")


def _flat_png(side: int) -> bytes:
    """Encode a whole, valid black image of 1 bit per pixel: kilobytes here, hundreds of megabytes when decoded."""
    header = _chunk(b"IHDR", struct.pack(">II", side, side) + b"\x01\0\0\0\0")
    rows = zlib.compress(bytes((1 + side // 8) * side), 9)
    return b"\x89PNG\r\n\x1a\n" + header + _chunk(b"IDAT", rows) + _chunk(b"IEND", b"")


def _chunk(kind: bytes, payload: bytes) -> bytes:
    return struct.pack(">I", len(payload)) + kind + payload + struct.pack(">I", zlib.crc32(kind + payload))


def _dicom(changes: Changes | None = None, syntax: uid.UID = uid.ExplicitVRLittleEndian, **more: object) -> bytes:
    """Write a small DX image with some elements changed, or left out where the change is None."""
    elements: Changes = {
        "SOPClassUID": uid.DigitalXRayImageStorageForPresentation,
        "SOPInstanceUID": "2.25.1",
        "Modality": "DX",
        "ViewPosition": "PA",
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "Rows": _SIDE,
        "Columns": _SIDE,
        "BitsAllocated": 8,
        "BitsStored": 8,
        "HighBit": 7,
        "PixelRepresentation": 0,
        "PixelData": image().tobytes(),
    }
    dataset = Dataset()
    for keyword, value in {**elements, **(changes or {}), **more}.items():
        if value is not None:
            setattr(dataset, keyword, value)
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    file = io.BytesIO()
    dataset.save_as(file, enforce_file_format=True)
    return file.getvalue()


def _relabelled(native: bytes) -> bytes:
    """Call native pixel data RLE-compressed, as a careless gateway does."""
    plain, rle = uid.ExplicitVRLittleEndian.encode(), uid.RLELossless.encode()
    return native.replace(plain.ljust(20, b"\0"), rle.ljust(20, b"\0"), 1)


def _deflated_bomb() -> bytes:
    """Write a deflated image whose data set inflates to 192 MiB of zeros."""
    whole = _dicom(syntax=uid.DeflatedExplicitVRLittleEndian, Rows=None, PixelData=None)
    meta = whole[: 144 + int.from_bytes(whole[140:144], "little")]
    stream = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    header = struct.pack("<HH2sHI", 0x7FE0, 0x0010, b"OB", 0, 192 * 2**20)
    parts = [stream.compress(header)] + [stream.compress(bytes(2**20)) for _ in range(192)] + [stream.flush()]
    return meta + b"".join(parts)
