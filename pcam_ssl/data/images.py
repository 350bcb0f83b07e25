"""Lossless decoding of images to RGB pixels, and the statistics of a patch: brightness, H&E stain, two hashes."""

import hashlib
import io
import sys
from functools import cache

import cv2
import numpy as np
from PIL import Image
from threadpoolctl import ThreadpoolController

from pcam_ssl.errors import first_line

# OpenCV's threads gain nothing on patches, and compete with torch's and with other processes for the same cores.
cv2.setNumThreads(0)

FORMATS = ("TIFF", "PNG", "JPEG", "BMP", "WEBP")
SUFFIXES = (".tif", ".tiff", ".png", ".jpg", ".jpeg", ".bmp", ".webp")


class BadImage(Exception):
    """An image cannot become a patch. The message completes a line that begins with the file name."""


def decode(encoded: bytes) -> np.ndarray:
    """Pixels uint8 [H, H, 3] of an encoded image.

    Grey, bilevel, palette, and opaque alpha images become RGB. So do 16-bit images whose values are all 8-bit values times 257,
    or all below 256. Raises BadImage where the bytes are damaged, hold several pages, are not square, or the conversion would lose
    information.
    """
    try:
        with Image.open(io.BytesIO(encoded), formats=FORMATS) as image:
            if getattr(image, "n_frames", 1) > 1:
                raise BadImage(f"holds {image.n_frames} pages; save one image a file")
            return _square(_rgb(image, encoded))
    except BadImage:
        raise
    except Image.UnidentifiedImageError:
        raise BadImage("empty file" if not encoded else "not an image") from None
    except Exception as error:  # Pillow raises many kinds of error for damaged files
        raise BadImage(f"damaged ({first_line(error)})") from None


def edge_px(encoded: bytes) -> int | None:
    """Edge length in px of a square image, from its header; None where it is not a square image."""
    try:
        with Image.open(io.BytesIO(encoded), formats=FORMATS) as image:
            return image.width if image.width == image.height else None
    except Exception:  # decode() reports the problem later
        return None


def _rgb(image: Image.Image, encoded: bytes) -> np.ndarray:
    if ";16" in str(image.tile):  # Pillow would silently drop the low byte of each value
        return _narrow(_sixteen_bit(image, encoded))
    if image.mode in ("1", "L", "P") and "transparency" not in image.info:
        return np.asarray(image.convert("RGB"))
    if image.mode == "RGB" and "transparency" not in image.info:
        return np.asarray(image)
    if image.mode in ("RGBA", "LA", "PA", "RGB", "L", "P", "1"):
        pixels = np.asarray(image.convert("RGBA"))
        if (pixels[..., 3] != 255).any():
            raise BadImage("has transparent pixels; flatten it onto a background first")
        return np.ascontiguousarray(pixels[..., :3])
    raise BadImage(f"has colour mode {image.mode}; save it as 8-bit RGB")


def _sixteen_bit(image: Image.Image, encoded: bytes) -> np.ndarray:
    """Values of a 16-bit image, [H, W] or [H, W, C]."""
    if image.mode.startswith("I"):
        return np.asarray(image).astype(np.int64)
    swapped = Image.open(io.BytesIO(encoded), formats=FORMATS)
    other = {"B": "L", "L": "B", "N": "B" if sys.byteorder == "little" else "L"}
    swapped.tile = [tile._replace(args=_swap(tile.args, other)) for tile in swapped.tile]
    high, low = np.asarray(image).astype(np.int64), np.asarray(swapped)
    return high * 256 + low


def _swap(args, other: dict[str, str]):
    rawmode = args if isinstance(args, str) else args[0]
    rawmode = rawmode[:-1] + other[rawmode[-1]]
    return rawmode if isinstance(args, str) else (rawmode, *args[1:])


def _narrow(values: np.ndarray) -> np.ndarray:
    if (values % 257 == 0).all():
        values = values // 257
    elif values.max() > 255:
        raise BadImage("has 16 bits a channel; save it as 8-bit RGB")
    if values.ndim == 2:
        values = values[..., None].repeat(3, axis=2)
    if values.shape[2] == 4:
        if (values[..., 3] != 255).any():
            raise BadImage("has transparent pixels; flatten it onto a background first")
        values = values[..., :3]
    return np.ascontiguousarray(values.astype(np.uint8))


def _square(pixels: np.ndarray) -> np.ndarray:
    if pixels.shape[0] != pixels.shape[1]:
        raise BadImage(f"is {pixels.shape[1]} x {pixels.shape[0]} px, not square")
    return pixels


DENSITY_UNITS = 2**23
WHOLE_DENSITY = np.rint(-np.log10(np.maximum(np.arange(256), 1) / 255.0) * DENSITY_UNITS).astype(np.int32)
OPTICAL_DENSITY = WHOLE_DENSITY / DENSITY_UNITS
"""Optical density of each 8-bit intensity; 0 counts as 1, so that the density of black is finite.

Rounded to multiples of 2^-23, so that the sum over a patch is exact (H up to 16,384 px). Stain clusters, and so folds, depend on it,
and CPUs differ in the logarithm's last digit and in the order of a sum.
"""
STAINS = np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11], [0.27, 0.57, 0.78]])
"""Optical density (red, green, blue) of hematoxylin, eosin, and a residual: Ruifrok & Johnston (2001)."""
UNMIX = np.rint(np.linalg.inv(STAINS / np.linalg.norm(STAINS, axis=1, keepdims=True)) * 2**30) / 2**30
"""Rounded for the same reason."""


def without_threads():
    """Context manager in which matrix products of `measure` use one thread. They are so small that further threads only wait, at full load:
    two processes that measure would take each other's core."""
    return _thread_pools().limit(limits=1)


_thread_pools = cache(ThreadpoolController)


def measure(pixels: np.ndarray) -> dict[str, np.ndarray]:
    """Statistics of patches uint8 [B, H, H, 3], each of length B.

    brightness: mean intensity in [0, 1]. od_r, od_g, od_b: mean optical density of a channel. stain_h, stain_e: mean
    concentration of hematoxylin and eosin by colour deconvolution (Ruifrok & Johnston 2001). Unmixing is linear, so it is applied to
    the mean optical density; a concentration is negative where a patch is redder or bluer than the stain pair allows.
    pixel_hash: hex digest of the pixels. view_hash: see `view_hashes`.
    """
    pixels = np.ascontiguousarray(pixels)
    area = pixels.shape[1] * pixels.shape[2]
    # One patch at a time fits in the processor's cache. A table of whole numbers and OpenCV's sums take a quarter of the time of numpy's.
    brightness = np.array([cv2.sumElems(patch)[:3] for patch in pixels]).sum(axis=1) / (3 * 255 * area)
    density = np.array([cv2.sumElems(cv2.LUT(patch, WHOLE_DENSITY))[:3] for patch in pixels]) / DENSITY_UNITS / area  # [B, 3]
    stain = density[:, :1] * UNMIX[0] + density[:, 1:2] * UNMIX[1] + density[:, 2:] * UNMIX[2]
    return {
        "brightness": brightness.astype(np.float32),
        "stain_h": stain[:, 0].astype(np.float32),
        "stain_e": stain[:, 1].astype(np.float32),
        "od_r": density[:, 0].astype(np.float32),
        "od_g": density[:, 1].astype(np.float32),
        "od_b": density[:, 2].astype(np.float32),
        "pixel_hash": [hashlib.blake2b(patch.data, digest_size=16).hexdigest() for patch in pixels],
        "view_hash": view_hashes(pixels),
    }


BLOCK_PX = 8 * 96**2
"""Pixels that are hashed at once: their floats fit in the processor's cache."""


def view_hashes(pixels: np.ndarray) -> list[str]:
    """A 64-bit perceptual hash (16 hex digits) of each patch uint8 [B, H, H, 3], the same for all 8 dihedral views.

    Like pHash it uses the lowest 8 x 8 frequencies C of the DCT of the grey image, without brightness (0, 0). Mirroring a
    patch changes the sign of the odd frequencies along that axis; transposing it swaps u and v. So for two frequencies (u, v) and
    (p, q) with u, p of equal parity and v, q of equal parity, C[u, v] C[p, q] + C[v, u] C[q, p] is the same for all 8 views. A bit is
    the sign of one such sum; the 64 pairs of lowest frequency make the hash. The basis is rounded to integers, so every sum is exact
    in float64 in any order (H up to 16,384 px), and hashes agree to the bit.

    Measured on 3,000 PCam patches: distances of different patches have mean 32.0 and standard deviation 4.0, as for independent
    bits. A patch saved again as JPEG of quality 75 is 0.4 bits away on average (99 % within 3), of quality 50 1.1 bits (99 % within 6).
    About one pair of different patches in a million is within 4 bits; those seen were nearly blank and looked alike.
    Patches of one flat colour all have the hash 0.
    """
    pixels = np.ascontiguousarray(pixels)
    size_px = pixels.shape[1]
    basis = _integer_cosines(size_px)
    # Whole numbers up to 4 x 255 x 128 x H: below 2^24 float32 is exact too, in any order of the sum, and half the work.
    kind = np.float32 if 4 * 255 * 128 * size_px <= 2**24 else np.float64
    weights, along = np.array([[1, 2, 1]], kind), basis.T.astype(kind)
    (u, v), (p, q) = VIEW_PAIRS[:, 0].T, VIEW_PAIRS[:, 1].T
    block, hashes = max(1, BLOCK_PX // size_px**2), []
    for start in range(0, len(pixels), block):
        lines = pixels[start : start + block].reshape(-1, size_px, 3)
        grey = cv2.transform(lines.astype(kind), weights)  # [b H, H]
        spectrum = basis @ (grey @ along).astype(np.float64).reshape(-1, size_px, 8)  # [b, 8, 8]
        bits = spectrum[:, u, v] * spectrum[:, p, q] + spectrum[:, v, u] * spectrum[:, q, p] > 0  # [b, 64]
        hashes += [packed.tobytes().hex() for packed in np.packbits(bits, axis=1)]
    return hashes


@cache
def _integer_cosines(size_px: int) -> np.ndarray:
    """The 8 lowest DCT-II basis vectors [8, H], times 128 and rounded, exactly even or odd about the middle."""
    frequency = np.arange(8)[:, None]
    half = np.rint(128 * np.cos(np.pi * (2 * np.arange((size_px + 1) // 2) + 1) * frequency / (2 * size_px)))
    mirrored = half[:, : size_px // 2][:, ::-1] * np.where(frequency % 2, -1, 1)
    return np.concatenate([half, mirrored], axis=1)


def _view_pairs(count: int = 64) -> np.ndarray:
    frequencies = sorted(((u, v) for u in range(8) for v in range(8) if u + v > 0), key=lambda f: (f[0] + f[1], f))
    pairs = {}
    for place, a in enumerate(frequencies):
        for b in frequencies[place + 1 :]:
            if (a[0] - b[0]) % 2 == 0 and (a[1] - b[1]) % 2 == 0:
                orbit = frozenset([frozenset([a, b]), frozenset([a[::-1], b[::-1]])])
                pairs.setdefault(orbit, (a, b))
    ranked = sorted(pairs.values(), key=lambda pair: (sum(pair[0]) + sum(pair[1]), pair))
    return np.array(ranked[:count])  # [64, 2, 2]


VIEW_PAIRS = _view_pairs()
