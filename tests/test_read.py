"""PNG, JPEG and everything that is neither: what is read, how grey it becomes, and what is refused."""

from __future__ import annotations

import hashlib
import io
import struct
import subprocess
import sys
import zlib

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from covseg.errors import RadiographRefused, Reason
from covseg.stages.read import READERS, DecodedImage, Reader, read, refusal
from covseg.stages.read.codestream import jpeg_frame
from covseg.stages.read.grey import MAX_PIXELS
from covseg.synthetic.bad_inputs import image

IMAGE = image(96)
TALL = IMAGE[:, :72]


def encode(picture, kind="PNG", **options):
    file = io.BytesIO()
    (picture if isinstance(picture, Image.Image) else Image.fromarray(picture)).save(file, kind, **options)
    return file.getvalue()


def reason_of(data):
    with pytest.raises(RadiographRefused) as refused:
        read(data)
    assert refused.value.stage == "read"
    return refused.value.reason


def oriented(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif.tobytes()


def chunk(kind, payload):
    return struct.pack(">I", len(payload)) + kind + payload + struct.pack(">I", zlib.crc32(kind + payload))


def with_chunk(png, kind, payload):
    """Put one more chunk behind the header chunk."""
    return png[:33] + chunk(kind, payload) + png[33:]


def grey_png(stream, bits=8, interlaced=0, side=96):
    """Write a square grey PNG around a finished pixel stream."""
    header = struct.pack(">IIBBBBB", side, side, bits, 0, 0, 0, interlaced)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", stream) + chunk(b"IEND", b"")


def test_an_image_keeps_its_grey_values_its_hash_and_its_shape():
    radiograph = read(encode(TALL))
    assert radiograph.pixels.dtype == np.float32
    assert radiograph.pixels.shape == (96, 72)
    assert np.array_equal(radiograph.pixels, TALL / np.float32(255))
    assert (radiograph.kind, radiograph.view_position, radiograph.pixel_spacing_mm) == ("png", None, None)
    assert radiograph.sha256 == hashlib.sha256(encode(TALL)).hexdigest()


def test_real_images_decode_to_the_values_that_pillow_sees(val_root):
    for path in sorted((val_root / "COVID-19" / "images").glob("*.png"))[:20]:
        with Image.open(path) as image:
            expected = np.asarray(image.convert("L"), dtype=np.float32) / np.float32(255)
        assert np.array_equal(read(path.read_bytes()).pixels, expected)


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA", "P"])
def test_a_grey_image_reads_the_same_in_every_mode_of_png(mode):
    grey = Image.fromarray(IMAGE)
    assert np.array_equal(read(encode(grey.convert(mode))).pixels, IMAGE / np.float32(255))


@pytest.mark.parametrize("mode", ["LA", "RGBA"])
def test_alpha_does_not_matter(mode):
    picture = Image.fromarray(IMAGE).convert(mode)
    picture.putalpha(Image.fromarray(np.tri(96, dtype=np.uint8) * 255))
    assert np.array_equal(read(encode(picture)).pixels, IMAGE / np.float32(255))


def test_a_transparent_grey_level_does_not_matter():
    assert np.array_equal(read(encode(IMAGE, transparency=int(IMAGE[0, 0]))).pixels, IMAGE / np.float32(255))


def test_an_interlaced_image_reads_like_a_plain_one():
    starts_and_steps = "0088 4088 0448 2044 0224 1022 0112"  # Adam7: x, y, step in x, step in y of each pass
    passes = (tuple(int(digit) for digit in one) for one in starts_and_steps.split())
    rows = (row for x, y, dx, dy in passes for row in IMAGE[y::dy, x::dx])
    stream = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
    assert np.array_equal(read(grey_png(stream, interlaced=1)).pixels, IMAGE / np.float32(255))


def test_gamma_and_text_do_not_change_an_image():
    changed = with_chunk(with_chunk(encode(IMAGE), b"gAMA", struct.pack(">I", 100_000)), b"tEXt", b"Author\0nobody")
    assert np.array_equal(read(changed).pixels, IMAGE / np.float32(255))


def test_four_bit_grey_is_spread_over_the_whole_range():
    packed = (IMAGE[:, ::2] >> 4 << 4) | (IMAGE[:, 1::2] >> 4)
    stream = zlib.compress(b"".join(b"\0" + row.tobytes() for row in packed))
    assert np.allclose(read(grey_png(stream, bits=4)).pixels, (IMAGE >> 4) / 15)


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 15, 16])
def test_a_sixteen_bit_image_is_scaled_by_its_real_depth(bits):
    ramp = np.linspace(0, 2**bits - 1, 96 * 96).round().astype(np.uint16).reshape(96, 96)
    pixels = read(encode(ramp)).pixels
    assert np.allclose(pixels, ramp / (2**bits - 1))
    assert (pixels == 1).mean() < 0.05, "a naive conversion to 8 bits saturates most of the ramp"


def test_a_dim_sixteen_bit_image_is_not_stretched_to_its_own_maximum():
    dim = IMAGE.astype(np.uint16) * 16
    assert dim.max() < 4095
    assert np.allclose(read(encode(dim)).pixels, dim / 4095)


def test_sixteen_bit_colour_of_a_grey_image_reads_as_grey():
    deep = IMAGE.astype(np.uint16) * 257
    colour = cv2.imencode(".png", np.dstack([deep] * 3))[1].tobytes()
    assert np.array_equal(read(colour).pixels, read(encode(deep)).pixels)


def test_a_tinted_image_is_read_by_its_luma():
    blue_base = np.dstack([IMAGE * 0.8, IMAGE * 0.85, IMAGE * 0.95]).astype(np.uint8)
    expected = cv2.cvtColor(blue_base, cv2.COLOR_RGB2GRAY) / np.float32(255)
    assert np.array_equal(read(encode(blue_base)).pixels, expected)


def test_a_coloured_marker_does_not_make_an_image_a_photograph():
    marked = np.dstack([IMAGE] * 3)
    marked[:12, :24] = (255, 0, 0)
    assert read(encode(marked)).pixels.shape == (96, 96)


def test_a_heat_map_is_no_radiograph():
    assert reason_of(encode(cv2.applyColorMap(IMAGE, cv2.COLORMAP_JET))) is Reason.NOT_RADIOGRAPH


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"quality": 95}])
def test_a_grey_jpeg_reads_as_pillow_reads_it(options):
    data = encode(IMAGE, "JPEG", **options)
    radiograph = read(data)
    assert radiograph.kind == "jpeg"
    assert np.array_equal(radiograph.pixels, np.asarray(Image.open(io.BytesIO(data))) / np.float32(255))


def test_a_cmyk_jpeg_keeps_its_polarity():
    data = encode(Image.fromarray(IMAGE).convert("CMYK"), "JPEG", quality=95)
    assert np.abs(read(data).pixels - IMAGE / 255).mean() < 0.02


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_exif_orientation_is_applied(kind, orientation):
    data = encode(TALL, kind, exif=oriented(orientation))
    with Image.open(io.BytesIO(data)) as image:
        expected = np.asarray(ImageOps.exif_transpose(image))
    assert np.array_equal(read(data).pixels, expected / np.float32(255))


def test_a_damaged_exif_block_leaves_up_unknown():
    block = b"Exif\0\0II*\0\xff\xff\xff\xff"
    assert reason_of(with_chunk(encode(IMAGE), b"eXIf", block)) is Reason.CORRUPT
    assert reason_of(encode(IMAGE, "JPEG", exif=block)) is Reason.CORRUPT


def test_a_jpeg_cut_inside_its_thumbnail_is_truncated():
    jpeg = encode(IMAGE, "JPEG")
    thumbnail = b"\xff\xe1" + struct.pack(">H", len(jpeg) + 2) + jpeg
    assert reason_of((jpeg[:2] + thumbnail + jpeg[2:])[: -len(jpeg) // 2]) is Reason.TRUNCATED


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_bytes_behind_the_end_of_the_image_are_ignored(kind):
    data = encode(IMAGE, kind)
    assert np.array_equal(read(data + b"trailing bytes").pixels, read(data).pixels)


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_every_cut_of_a_file_is_truncated(kind):
    data = encode(IMAGE, kind)
    assert {reason_of(data[:length]) for length in range(1, len(data), 7)} == {Reason.TRUNCATED}


def test_every_flipped_bit_of_a_png_is_found():
    data = encode(IMAGE)
    for position in range(8, len(data), 101):
        flipped = bytearray(data)
        flipped[position] ^= 4
        assert reason_of(bytes(flipped)) in (Reason.CORRUPT, Reason.TRUNCATED, Reason.TOO_LARGE, Reason.TOO_SMALL)


def test_a_wrong_checksum_of_the_pixel_stream_is_found_where_every_chunk_is_whole():
    stream = bytearray(zlib.compress(b"".join(b"\0" + row.tobytes() for row in IMAGE)))
    assert read(grey_png(stream)).pixels.shape == (96, 96)
    stream[-1] ^= 1
    assert reason_of(grey_png(stream)) is Reason.CORRUPT


def test_the_size_is_judged_before_anything_is_decoded():
    side = int(MAX_PIXELS**0.5) + 1
    assert reason_of(grey_png(b"this was never a pixel", side=side)) is Reason.TOO_LARGE


def test_an_image_of_sixty_four_pixels_is_large_enough():
    assert read(encode(image(64))).pixels.shape == (64, 64)


def test_eight_grey_levels_make_an_image_and_seven_a_drawing():
    steps = np.tile(np.arange(96, dtype=np.uint8) // 12 * 30, (96, 1))
    assert read(encode(steps)).pixels.shape == (96, 96)
    assert reason_of(encode(np.minimum(steps, 180))) is Reason.NOT_RADIOGRAPH


def test_a_twelve_bit_header_is_read_from_a_jpeg():
    jpeg = bytearray(encode(TALL, "JPEG"))
    precision = jpeg.index(b"\xff\xc0") + 4
    jpeg[precision] = 12
    frame = jpeg_frame(bytes(jpeg))
    assert (frame.bits, frame.height, frame.width, frame.components, frame.classic) == (12, 96, 72, 1, False)


def test_png_still_works_after_the_dicom_decoders_are_loaded():
    program = (
        "import covseg, pydicom.pixels, numpy, cv2, io; from PIL import Image; from covseg.stages.read import read\n"
        "pixels = numpy.arange(9216, dtype='uint16').reshape(96, 96)\n"
        "for _ in range(20): file = io.BytesIO(); Image.fromarray(pixels).save(file, 'PNG'); read(file.getvalue())\n"
        "cv2.imencode('.png', pixels)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@settings(deadline=None, max_examples=200)
@given(st.binary(max_size=300))
def test_arbitrary_bytes_are_refused_and_nothing_else_happens(data):
    with pytest.raises(RadiographRefused):
        read(data)


@settings(deadline=None, max_examples=100)
@given(st.sampled_from([b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", bytes(128) + b"DICM"]), st.binary(max_size=300))
def test_arbitrary_bytes_behind_a_signature_are_refused_and_nothing_else_happens(signature, data):
    with pytest.raises(RadiographRefused):
        read(signature + data)


SEEDS = {
    "png": encode(IMAGE),
    "png16": encode(IMAGE.astype(np.uint16) * 16),
    "jpeg": encode(IMAGE, "JPEG", exif=oriented(6)),
    "progressive": encode(IMAGE, "JPEG", progressive=True),
}


@settings(deadline=None, max_examples=200, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from(sorted(SEEDS)), st.data())
def test_a_damaged_image_is_read_or_refused_and_nothing_else_happens(name, draw):
    data = bytearray(SEEDS[name])
    for _ in range(draw.draw(st.integers(1, 4))):
        data[draw.draw(st.integers(0, len(data) - 1))] = draw.draw(st.integers(0, 255))
    start = draw.draw(st.integers(0, len(data)))
    del data[start : start + draw.draw(st.integers(0, 20))]
    try:
        assert read(bytes(data)).pixels.min() >= 0
    except RadiographRefused as refused:
        assert refused.reason in Reason


def read_pgm(data):
    """Read the binary, 8-bit form, as `pgm` writes it."""
    _, size, _, pixels = data.split(b"\n", 3)
    width, height = map(int, size.split())
    if len(pixels) < width * height:
        raise refusal(Reason.TRUNCATED, "the PGM ends inside its pixels")
    return DecodedImage(np.frombuffer(pixels, np.uint8).reshape(height, width).astype(np.float32) / 255)


def pgm(pixels):
    return b"P5\n%d %d\n255\n" % pixels.shape[::-1] + pixels.tobytes()


def test_a_format_from_outside_is_one_entry(monkeypatch):
    assert reason_of(pgm(TALL)) is Reason.NOT_AN_IMAGE
    monkeypatch.setattr(
        "covseg.stages.read.READERS", [*READERS, Reader("pgm", lambda data: data[:2] == b"P5", read_pgm)]
    )
    assert read(pgm(TALL)).kind == "pgm"
    np.testing.assert_array_equal(read(pgm(TALL)).pixels, read(encode(TALL)).pixels)
    assert reason_of(pgm(TALL)[:-1]) is Reason.TRUNCATED
    assert reason_of(pgm(np.full((64, 64), 9, np.uint8))) is Reason.NO_CONTRAST
    assert reason_of(b"P5") is Reason.CORRUPT
    assert read(encode(TALL)).kind == "png"
