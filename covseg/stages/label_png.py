"""A label map as a PNG, written run by run instead of pixel by pixel.

In: a map ``(H, W)`` of background, lung and infection. Out: the bytes of an 8-bit grey PNG without row filters. Its
deflate stream (RFC 1951) is one block with codes that were fitted to such maps once: a run is its value, and copies at
distance 1. zlib would look at every pixel to find the same runs.
"""

from __future__ import annotations

import zlib
from functools import lru_cache
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]

SIGNATURE = b"\x89PNG\r\n\x1a\n"
LONGEST, SHORTEST, END, FIRST_LENGTH = 258, 3, 256, 257
ADLER = 65521  # RFC 1950
# Bits of the codes of values 0, 1, 2, of the end, and of lengths 257 to 285; Kraft's sum is 1.
VALUE_BITS, END_BITS = (3, 2, 4), 9
LENGTH_BITS = (6, 7, 7, 7, 6, 8, 7, 9, 7, 7, 7, 7, 6, 7, 7, 7, 5, 5, 5, 5, 5, 5, 6, 6, 5, 6, 6, 6, 3)
# Bits of the codes of code lengths: 0 to 14 and 18, a run of zeros, have 4; in the order of RFC 1951.
ORDER = (16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15)


class _Codes(NamedTuple):
    """Bits to write, the first of them lowest, and how many; `tail` by value and copies left, 0 to 257."""

    head: tuple[Ints, Ints]
    value: tuple[Ints, Ints]
    longest: tuple[int, int]
    tail: tuple[Ints, Ints]
    end: tuple[int, int]


def label_png(label_map: NDArray[np.uint8]) -> bytes:
    """Return a map ``(H, W)`` of 0, 1 and 2 as a PNG."""
    height, width = label_map.shape
    rows = cv2.copyMakeBorder(label_map, 0, 0, 1, 0, cv2.BORDER_CONSTANT, value=0).ravel()  # in front: no filter
    stops = np.append(np.flatnonzero(rows[1:] != rows[:-1]) + 1, len(rows))
    starts = np.append(0, stops[:-1])
    values = rows[starts].astype(np.int64)
    stream = b"\x78\x01" + _deflate(values, stops - starts) + _adler(values, starts, stops).to_bytes(4, "big")
    size = width.to_bytes(4, "big") + height.to_bytes(4, "big")
    return SIGNATURE + _chunk(b"IHDR", size + b"\x08\0\0\0\0") + _chunk(b"IDAT", stream) + _chunk(b"IEND", b"")


def _chunk(kind: bytes, payload: bytes) -> bytes:
    content = kind + payload
    return len(payload).to_bytes(4, "big") + content + zlib.crc32(content).to_bytes(4, "big")


def _deflate(values: Ints, lengths: Ints) -> bytes:
    codes = _codes()
    copies, left = np.divmod(lengths - 1, LONGEST)
    head = len(codes.head[0])
    first = head + np.cumsum(copies + 2) - copies - 2
    written = []
    for part in (0, 1):  # bits, and how many
        tokens = np.full(first[-1] + copies[-1] + 3, codes.longest[part], np.int64)
        tokens[:head], tokens[-1] = codes.head[part], codes.end[part]
        tokens[first], tokens[first + copies + 1] = codes.value[part][values], codes.tail[part][values, left]
        written.append(tokens)
    bits, counts = written
    places = np.cumsum(counts) - counts
    shifted, words = bits << (places & 31), places >> 5
    size = int(words[-1]) + 2
    packed = np.bincount(words, shifted & 0xFFFFFFFF, size) + np.bincount(words + 1, shifted >> 32, size)
    return packed.astype("<u4").tobytes()[: (int(places[-1] + counts[-1]) + 7) // 8]


def _adler(values: Ints, starts: Ints, stops: Ints) -> int:
    """Return Adler-32 of runs: a byte counts once, and once more for every byte from it to the end."""
    lengths, total = stops - starts, int(stops[-1])
    once = 1 + int((values * lengths).sum())
    again = total + int((values * (lengths * (2 * total - starts - stops + 1) // 2)).sum())
    return (again % ADLER) << 16 | once % ADLER


@lru_cache(maxsize=1)
def _codes() -> _Codes:
    widths = dict(enumerate(VALUE_BITS)) | {END: END_BITS}
    widths |= dict(enumerate(LENGTH_BITS, FIRST_LENGTH))
    codes = _canonical(widths)
    lengths = [_copy(count, codes) for count in range(SHORTEST, LONGEST + 1)]
    tail = [[(0, 0), value, _join(value, value), *lengths[:-1]] for value in (codes[0], codes[1], codes[2])]
    table = np.array(tail, np.int64)
    values = np.array([codes[value] for value in range(3)], np.int64)
    head = np.array(_head(widths), np.int64)
    return _Codes(
        (head[:, 0], head[:, 1]), (values[:, 0], values[:, 1]), lengths[-1], (table[..., 0], table[..., 1]), codes[END]
    )


def _canonical(widths: dict[int, int]) -> dict[int, tuple[int, int]]:
    """Give each symbol a code, as RFC 1951 does: by width, then by symbol; a code's first bit becomes its lowest."""
    codes, code, before = {}, 0, 0
    for width, symbol in sorted((width, symbol) for symbol, width in widths.items()):
        code <<= width - before
        codes[symbol] = int(f"{code:0{width}b}"[::-1], 2), width
        code, before = code + 1, width
    return codes


def _join(first: tuple[int, int], second: tuple[int, int]) -> tuple[int, int]:
    return first[0] | second[0] << first[1], first[1] + second[1]


def _copy(count: int, codes: dict[int, tuple[int, int]]) -> tuple[int, int]:
    """Return the bits that copy the byte before `count` times: length, its extra bits, and distance 1, which is a 0."""
    if count == LONGEST:
        return _join(codes[285], (0, 1))
    if count < 11:
        return _join(codes[FIRST_LENGTH + count - SHORTEST], (0, 1))
    extra = (count - SHORTEST).bit_length() - 3
    symbol = 261 + 4 * extra + ((count - SHORTEST) >> extra) - 4
    return _join(_join(codes[symbol], ((count - SHORTEST) & ((1 << extra) - 1), extra)), (0, 1))


def _head(widths: dict[int, int]) -> list[tuple[int, int]]:
    """Return the block's head: last, of codes of its own, which are told by their widths."""
    names = _canonical(dict.fromkeys((*range(15), 18), 4))
    zeros = [names[18], (138 - 11, 7), names[18], (END - 3 - 138 - 11, 7)]
    coded = [names[widths[symbol]] for symbol in (0, 1, 2)] + zeros
    coded += [names[widths[symbol]] for symbol in range(END, 286)] + [names[1]]
    counts = [(1, 1), (2, 2), (29, 5), (0, 5), (15, 4)]
    return counts + [(4 if symbol in names else 0, 3) for symbol in ORDER] + coded
