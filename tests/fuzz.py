"""Seeded mutations of DICOM, PNG and JPEG bytes through the reader: ``python -m tests.fuzz START COUNT``.

Each mutation follows from its number alone. The process prints the number before it reads, so that what a crash or a
hang was reading is known; at its end it prints a JSON line: reasons counted, the slowest mutation, the peak memory.
"""

from __future__ import annotations

import io
import json
import random
import resource
import struct
import sys
import tempfile
import time
import zlib
from collections import Counter
from functools import cache
from pathlib import Path

import cv2
import numpy as np
from PIL import Image
from pydicom import uid
from pydicom.dataset import Dataset

from covseg.dicom import read_source
from covseg.errors import RadiographRefused
from covseg.settings.dicom import DicomSettings
from covseg.stages.read import read
from covseg.synthetic.bad_inputs import image
from tests.dicom_images import SIDE, TWELVE_BIT, dataset, jpeg_lossless, with_canaries, written

SYNTAXES = (
    uid.ExplicitVRLittleEndian, uid.ImplicitVRLittleEndian, uid.DeflatedExplicitVRLittleEndian, uid.RLELossless,
    uid.JPEGLSLossless, uid.JPEG2000Lossless,
)  # fmt: skip
EDGES = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFE, 0xFFFFFFFF)
LINKED = DicomSettings(kinds=("sr",), link_patient=True)


@cache
def seeds() -> dict[str, bytes]:
    """Return one small sound file of each kind."""
    made = {syntax.name: written(dataset(TWELVE_BIT, 12), syntax) for syntax in SYNTAXES}
    made["with names"] = with_canaries(written(dataset(image(SIDE), 8)))
    made["with tables"] = written(_with_tables())
    with tempfile.TemporaryDirectory() as folder:
        made["lossless JPEG in DICOM"] = jpeg_lossless(made[uid.ExplicitVRLittleEndian.name], Path(folder))
    grey = Image.fromarray(image(SIDE))
    for mode in ("L", "RGB", "CMYK", "P"):
        file = io.BytesIO()
        grey.convert(mode).save(file, "PNG" if mode == "P" else "JPEG")
        made[f"Pillow {mode}"] = file.getvalue()
    file = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6
    grey.save(file, "JPEG", progressive=True, exif=exif)
    made["progressive JPEG"] = file.getvalue()
    for name, pixels in {"8": image(SIDE), "16": TWELVE_BIT, "colour": np.dstack([image(SIDE)] * 3)}.items():
        made[f"PNG {name}"] = cv2.imencode(".png", pixels)[1].tobytes()
    return made


def _with_tables() -> Dataset:
    table, voi = Dataset(), Dataset()
    table.LUTDescriptor, table.LUTData = [4096, 0, 16], list(range(0, 65536, 16))
    voi.LUTDescriptor, voi.LUTData = [4096, 0, 12], list(range(4096))
    one = dataset(TWELVE_BIT, 12, ModalityLUTSequence=[table], VOILUTSequence=[voi])
    for item in (table, voi):
        item["LUTDescriptor"].VR = item["LUTData"].VR = "US"
    return one


def mutation(number: int) -> bytes:
    """Return the mutation of a number: a seed in turn, changed in one to six places."""
    draw = random.Random(number)
    names = list(seeds())
    data = bytearray(seeds()[names[number % len(names)]])
    for _ in range(draw.randint(1, 6)):
        header = draw.random() < 0.6
        place = draw.randrange(max(1, min(len(data), 900) if header else len(data)))
        match draw.randrange(7):
            case 0:
                data[place : place + 1] = bytes([draw.randrange(256)])
            case 1:
                data[place : place + 2] = struct.pack(draw.choice("<>") + "H", draw.choice(EDGES) & 0xFFFF)
            case 2:
                data[place : place + 4] = struct.pack(draw.choice("<>") + "I", draw.choice(EDGES))
            case 3:
                del data[place : place + draw.randint(1, 64)]
            case 4:
                data[place:place] = data[place : place + draw.randint(1, 256)]
            case 5:
                data[place:place] = draw.randbytes(draw.randint(1, 32))
            case 6:
                del data[place if draw.random() < 0.2 else len(data) :]
    return _mended(bytes(data)) if draw.random() < 0.7 else bytes(data)


def _mended(data: bytes) -> bytes:
    """Give a PNG's chunks right checksums, so that damage gets past them."""
    if not data.startswith(b"\x89PNG\r\n\x1a\n"):
        return data
    out, start = bytearray(data), 8
    while start + 12 <= len(data):
        end = start + 12 + int.from_bytes(data[start : start + 4], "big")
        if end > len(data):
            break
        out[end - 4 : end] = zlib.crc32(data[start + 4 : end - 4]).to_bytes(4, "big")
        start = end
    return bytes(out)


def main(start: int, count: int) -> None:
    """Read `count` mutations from number `start` on."""
    found, slowest, kept = Counter[str](), (0.0, -1), time.perf_counter()
    for data in seeds().values():
        read(data)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for number in range(start, start + count):
        sys.stdout.write(f"{number}\n")
        sys.stdout.flush()
        data, kept = mutation(number), time.process_time()
        try:
            read(data)
            found["read"] += 1
        except RadiographRefused as refused:
            found[refused.reason] += 1
        read_source(data, b"a key for tests", LINKED)
        slowest = max(slowest, (round(time.process_time() - kept, 3), number))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    summary = {"found": found, "slowest": slowest, "peak_mib": peak >> 10, "before_mib": before >> 10}
    sys.stdout.write(json.dumps(summary) + "\n")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
