import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from pcam_ssl.data.images import BadImage, decode, edge_px


@pytest.fixture
def patch(make_pixels):
    return make_pixels(1)[0]


def png_16_bit(values: np.ndarray) -> bytes:
    """A PNG of 16 bits a channel, written by hand, since Pillow cannot: [H, W, C] uint16, C 1, 3 or 4."""

    def block(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    height, width, channels = values.shape
    header = struct.pack(">IIBBBBB", width, height, 16, {1: 0, 3: 2, 4: 6}[channels], 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    return b"\x89PNG\r\n\x1a\n" + block(b"IHDR", header) + block(b"IDAT", zlib.compress(rows)) + block(b"IEND", b"")


def tiff_16_bit(values: np.ndarray, order: str) -> bytes:
    """An uncompressed RGB TIFF of 16 bits a channel, `order` "<" or ">"."""
    height, width, _ = values.shape
    pixels = values.astype(f"{order}u2").tobytes()
    tags = [(256, 3, width), (257, 3, height), (259, 3, 1), (262, 3, 2), (277, 3, 3), (278, 3, height), (279, 4, len(pixels))]
    start = 8 + 2 + 12 * (len(tags) + 2) + 4
    tags = sorted([*tags, (258, 3, None), (273, 4, start + 6)])
    entries = b""
    for tag, kind, value in tags:
        if value is None:
            entries += struct.pack(f"{order}HHII", tag, kind, 3, start)
        elif kind == 3:
            entries += struct.pack(f"{order}HHIHH", tag, kind, 1, value, 0)
        else:
            entries += struct.pack(f"{order}HHII", tag, kind, 1, value)
    head = (b"II" if order == "<" else b"MM") + struct.pack(f"{order}HI", 42, 8)
    return (
        head
        + struct.pack(f"{order}H", len(tags))
        + entries
        + struct.pack(f"{order}I", 0)
        + struct.pack(f"{order}HHH", 16, 16, 16)
        + pixels
    )


@pytest.mark.parametrize(("kind", "options"), [("TIFF", {}), ("TIFF", {"compression": "tiff_lzw"}), ("PNG", {}), ("BMP", {})])
def test_rgb_is_decoded_exactly(patch, encode, kind, options):
    assert np.array_equal(decode(encode(patch, kind, **options)), patch)


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_grey_becomes_three_equal_channels(patch, encode, kind):
    assert np.array_equal(decode(encode(patch[..., 0], kind)), patch[..., :1].repeat(3, axis=2))


def test_bilevel_becomes_black_and_white(patch, encode):
    bilevel = patch[..., 0] > 127
    assert np.array_equal(
        decode(encode(Image.fromarray(bilevel), "PNG")), (bilevel * 255).astype(np.uint8)[..., None].repeat(3, axis=2)
    )


def test_palette_becomes_its_colours(patch, encode):
    palette = Image.fromarray(patch).quantize(16)
    assert np.array_equal(decode(encode(palette, "PNG")), np.asarray(palette.convert("RGB")))


def test_opaque_alpha_is_dropped(patch, encode):
    opaque = np.dstack([patch, np.full(patch.shape[:2], 255, np.uint8)])
    assert np.array_equal(decode(encode(opaque, "PNG")), patch)


def test_transparent_pixels_are_refused(patch, encode):
    alpha = np.full(patch.shape[:2], 255, np.uint8)
    alpha[0, 0] = 254
    with pytest.raises(BadImage, match="transparent pixels; flatten it"):
        decode(encode(np.dstack([patch, alpha]), "PNG"))


@pytest.mark.parametrize("factor", [1, 257])
@pytest.mark.parametrize(
    "write",
    [png_16_bit, lambda values: tiff_16_bit(values, "<"), lambda values: tiff_16_bit(values, ">")],
    ids=["png", "tiff <", "tiff >"],
)
def test_sixteen_bits_that_hold_eight_are_narrowed(patch, write, factor):
    assert np.array_equal(decode(write(patch.astype(np.uint16) * factor)), patch)


@pytest.mark.parametrize("channels", [1, 3])
def test_sixteen_bits_that_hold_more_are_refused(patch, channels):
    with pytest.raises(BadImage, match="16 bits a channel; save it as 8-bit RGB"):
        decode(png_16_bit(patch[..., :channels].astype(np.uint16) * 257 + 1))


def test_other_colour_modes_are_refused_by_name(patch, encode):
    with pytest.raises(BadImage, match="colour mode CMYK"):
        decode(encode(Image.fromarray(patch).convert("CMYK"), "TIFF"))


def test_several_pages_are_refused(patch):
    buffer = io.BytesIO()
    Image.fromarray(patch).save(buffer, "TIFF", save_all=True, append_images=[Image.fromarray(patch)])
    with pytest.raises(BadImage, match="holds 2 pages"):
        decode(buffer.getvalue())


@pytest.mark.parametrize("kind", ["TIFF", "PNG", "JPEG"])
def test_truncated_image_is_damaged(make_pixels, encode, kind):
    whole = encode(make_pixels(1, 64)[0], kind)
    with pytest.raises(BadImage, match="damaged"):
        decode(whole[: len(whole) // 2])


@pytest.mark.parametrize(("content", "reason"), [(b"", "empty file"), (b"<html>not found</html>", "not an image")])
def test_other_content_is_not_an_image(content, reason):
    with pytest.raises(BadImage, match=reason):
        decode(content)


def test_oblong_image_is_refused_with_its_size(patch, encode):
    with pytest.raises(BadImage, match="is 16 x 10 px, not square"):
        decode(encode(patch[:10], "PNG"))


def test_edge_comes_from_the_header(patch, encode):
    assert edge_px(encode(patch, "PNG")[:60]) == 16
    assert edge_px(encode(patch[:10], "PNG")) is None
    assert edge_px(b"nothing") is None
