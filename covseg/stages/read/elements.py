"""The few DICOM elements that the reader may see, and nothing else of the file.

In: the bytes of a DICOM object, with or without preamble and file meta. Out: `Elements`. Only the tags listed here
are taken up; names, dates, identifiers and free text are stepped over. Values are converted here, from raw bytes,
because pydicom's own conversion warns, and quotes, whenever a value breaks a rule that does not matter here.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from io import BytesIO

from pydicom import config, uid
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.filereader import data_element_generator
from pydicom.sequence import Sequence
from pydicom.tag import BaseTag
from pydicom.uid import UID
from pydicom.values import convert_SQ

from covseg.errors import Reason
from covseg.stages.read.grey import MAX_PIXELS
from covseg.stages.read.sniff import refusal

ALLOWED = {
    "OffsetOfTheFirstDirectoryRecordOfTheRootDirectoryEntity": 0x00041200,
    "SOPClassUID": 0x00080016,
    "Modality": 0x00080060,
    "PresentationIntentType": 0x00080068,
    "ImagerPixelSpacing": 0x00181164,
    "ViewPosition": 0x00185101,
    "PatientOrientation": 0x00200020,
    "SamplesPerPixel": 0x00280002,
    "PhotometricInterpretation": 0x00280004,
    "PlanarConfiguration": 0x00280006,
    "NumberOfFrames": 0x00280008,
    "Rows": 0x00280010,
    "Columns": 0x00280011,
    "PixelSpacing": 0x00280030,
    "BitsAllocated": 0x00280100,
    "BitsStored": 0x00280101,
    "HighBit": 0x00280102,
    "PixelRepresentation": 0x00280103,
    "BurnedInAnnotation": 0x00280301,
    "WindowCenter": 0x00281050,
    "WindowWidth": 0x00281051,
    "RescaleIntercept": 0x00281052,
    "RescaleSlope": 0x00281053,
    "VOILUTFunction": 0x00281056,
    "ModalityLUTSequence": 0x00283000,
    "LUTDescriptor": 0x00283002,
    "LUTData": 0x00283006,
    "VOILUTSequence": 0x00283010,
    "FloatPixelData": 0x7FE00008,
    "DoubleFloatPixelData": 0x7FE00009,
    "PixelData": 0x7FE00010,
}
_TRANSFER_SYNTAX = 0x00020010
_UNDEFINED = 0xFFFFFFFF
# Numbers stored as 16-bit words; every other number is text.
_WORDS = {
    *("SamplesPerPixel", "PlanarConfiguration", "Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit"),
    *("PixelRepresentation", "LUTDescriptor"),
}
# A deflated object may inflate to a thousand times its size; 3 bytes for each allowed pixel, and a header, are enough.
_MAX_INFLATED = 3 * MAX_PIXELS + 2**20


_VALUE_REPRESENTATIONS = frozenset(
    b"AE AS AT CS DA DS DT FL FD IS LO LT OB OD OF OL OV OW PN SH SL SQ SS ST SV TM UC UI UL UN UR US UT UV".split()
)


def is_dicom(data: bytes) -> bool:
    """Detect a DICOM file, or a data set without the 128-byte preamble, as old archives store it."""
    if data[128:132] == b"DICM":
        return True
    if data[:2] == b"\x00\x08":  # big-endian is always explicit
        return _starts_explicit(data)
    if data[:2] not in (b"\x08\x00", b"\x02\x00"):
        return False
    return _starts_explicit(data) or 0 < int.from_bytes(data[4:8], "little") <= min(len(data), 1024)


def _starts_explicit(data: bytes) -> bool:
    """Tell whether the element that starts here names its value representation."""
    return data[4:6] in _VALUE_REPRESENTATIONS


@dataclass(frozen=True)
class Elements:
    """The allowed elements of one data set, still raw.

    Parameters
    ----------
    raw : dict
        Tag to pydicom's raw element.
    syntax : UID
        How the data set, and its pixel data, are encoded.
    allowed : mapping of str to int
        Keyword to tag of what may be looked up.
    """

    raw: dict[int, RawDataElement | DataElement]
    syntax: UID
    allowed: Mapping[str, int] = field(default_factory=lambda: ALLOWED)

    def __contains__(self, keyword: str) -> bool:
        """Tell whether the element is there and not empty."""
        return bool(self._value(keyword))

    def text(self, keyword: str) -> str:
        """Return the first value, stripped and in capitals; empty when it is absent."""
        return self.texts(keyword)[0]

    def texts(self, keyword: str) -> tuple[str, ...]:
        """Return all values in capitals; one empty value when it is absent."""
        return tuple(value.upper() for value in self._strings(keyword))

    def numbers(self, keyword: str) -> tuple[float, ...]:
        """Return all values; empty when it is absent, ValueError when it is no number."""
        if keyword in _WORDS:
            value = self.data(keyword)
            return struct.unpack(f"{self.byte_order(keyword)}{len(value) // 2}H", value[: len(value) // 2 * 2])
        return tuple(float(value) for value in self._strings(keyword) if value)

    def number(self, keyword: str, default: float | None = None) -> float:
        """Return the first value, or the default.

        Raises
        ------
        RadiographRefused
            ``corrupt`` when it is absent and there is no default.
        """
        values = self.numbers(keyword)
        if values:
            return values[0]
        if default is None:
            raise refusal(Reason.CORRUPT, f"the DICOM header lacks {keyword}")
        return default

    def data(self, keyword: str) -> bytes:
        """Return the bytes as they are stored; empty when it is absent."""
        value = self._value(keyword)
        return value if isinstance(value, bytes) else b""

    def byte_order(self, keyword: str) -> str:
        """Return struct's sign for the element's byte order."""
        element = self.raw.get(self.allowed[keyword])
        return ">" if isinstance(element, RawDataElement) and not element.is_little_endian else "<"

    @property
    def encapsulated(self) -> bool:
        """True when the pixel data is stored as compressed fragments."""
        element = self.raw.get(self.allowed["PixelData"])
        return isinstance(element, RawDataElement) and element.length == _UNDEFINED

    def first_item(self, keyword: str) -> Elements | None:
        """Return the first item of a sequence; None when there is none."""
        element = self.raw.get(self.allowed[keyword])
        if element is None or not element.value:
            return None
        items = element.value
        if isinstance(element, RawDataElement):
            items = convert_SQ(element.value, element.is_implicit_VR, element.is_little_endian)
        if not isinstance(items, Sequence) or not items:
            return None
        item = items[0]
        return Elements({int(tag): item.get_item(tag) for tag in item.keys()}, self.syntax)  # noqa: SIM118

    def _value(self, keyword: str) -> object:
        element = self.raw.get(self.allowed[keyword])
        return None if element is None else element.value

    def _strings(self, keyword: str) -> list[str]:
        text = self.data(keyword).decode("ascii", "replace").replace("\0", " ")
        return [value.strip() for value in text.split("\\")]


def read_elements(data: bytes, allowed: Mapping[str, int] = ALLOWED) -> Elements:
    """Collect the allowed elements of a DICOM file or a bare data set, up to and with the last of them.

    Raises
    ------
    RadiographRefused
        ``truncated``, ``corrupt``, ``too_large`` (a deflated object that inflates beyond any image).
    """
    source = BytesIO(data)
    source.seek(132 if data[128:132] == b"DICM" else 0)
    try:
        syntax = _transfer_syntax(source)
        if syntax == uid.DeflatedExplicitVRLittleEndian:
            source = BytesIO(_inflate(data[source.tell() :]))
        elements = _collect(source, syntax, allowed)
    except (EOFError, struct.error) as error:
        raise refusal(Reason.TRUNCATED, "the DICOM object ends inside an element") from error
    except RecursionError as error:
        raise refusal(Reason.CORRUPT, "sequences lie in one another deeper than any object's") from error
    if any(map(_cut, elements.values())):
        raise refusal(Reason.TRUNCATED, "the DICOM object ends inside an element")
    return Elements(elements, syntax, allowed)


def _cut(element: RawDataElement | DataElement) -> bool:
    """Tell whether the object ended before this element's announced length."""
    if not isinstance(element, RawDataElement) or element.length == _UNDEFINED:
        return False
    return len(element.value or b"") < element.length


def _transfer_syntax(source: BytesIO) -> UID:
    """Read the file meta group, leave `source` behind it; guess the encoding where the group is absent."""
    meta = data_element_generator(source, False, True, lambda tag, _vr, _length: tag >> 16 != 2)
    group = {int(element.tag): element for element in meta}
    if _TRANSFER_SYNTAX in group:
        text = Elements({ALLOWED["Modality"]: group[_TRANSFER_SYNTAX]}, UID("")).text("Modality")
        if not re.fullmatch(r"[0-9.]{1,64}", text):
            raise refusal(Reason.CORRUPT, "the transfer syntax is not a UID")
        return UID(text, config.IGNORE)
    start = source.getvalue()[source.tell() : source.tell() + 8]
    if not _starts_explicit(start):
        return uid.ImplicitVRLittleEndian
    return uid.ExplicitVRBigEndian if start[0] == 0 else uid.ExplicitVRLittleEndian


def _inflate(data: bytes) -> bytes:
    stream = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        inflated = stream.decompress(data, _MAX_INFLATED)
    except zlib.error as error:
        raise refusal(Reason.CORRUPT, "the deflated DICOM object cannot be inflated") from error
    if stream.unconsumed_tail:
        raise refusal(Reason.TOO_LARGE, f"the deflated DICOM object inflates beyond {_MAX_INFLATED} bytes")
    if not stream.eof:
        raise refusal(Reason.TRUNCATED, "the deflated DICOM object ends inside its stream")
    return inflated


def _collect(source: BytesIO, syntax: UID, allowed: Mapping[str, int]) -> dict[int, RawDataElement | DataElement]:
    start = source.tell()
    # Some writers declare one encoding and use the other: the first element tells.
    implicit = not _starts_explicit(source.read(8))
    source.seek(start)
    tags: list[BaseTag | int] = list(allowed.values())
    last = max(allowed.values())
    elements = data_element_generator(
        source,
        implicit,
        syntax != uid.ExplicitVRBigEndian,
        lambda tag, _vr, _length: tag > last,
        specific_tags=tags,
    )
    return {int(element.tag): element for element in elements}
