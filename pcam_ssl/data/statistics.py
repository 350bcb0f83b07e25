"""What an import measures of every patch, in the pass that packs it: brightness, H&E stain, and two hashes. No torch."""

import hashlib

import numpy as np

OPTICAL_DENSITY = -np.log10(np.maximum(np.arange(256), 1) / 255.0)
"""Optical density of each 8-bit intensity; 0 counts as 1, so that black stays finite."""

STAINS = np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11], [0.27, 0.57, 0.78]])
"""Optical density (red, green, blue) of hematoxylin, eosin, and a residual: Ruifrok & Johnston (2001)."""

UNMIX = np.linalg.inv(STAINS / np.linalg.norm(STAINS, axis=1, keepdims=True))


def measure(pixels: np.ndarray) -> dict[str, np.ndarray]:
    """Statistics of patches uint8 [B, H, H, 3], each of length B.

    brightness: mean intensity in [0, 1]. od_r, od_g, od_b: mean optical density of a channel. stain_h, stain_e: mean
    concentration of hematoxylin and eosin by colour deconvolution (Ruifrok & Johnston 2001); unmixing is linear, so the mean
    concentration is that of the mean optical density, negative where a patch is redder or bluer than the stain pair allows.
    pixel_hash: hex of the exact bytes. view_hash: see `view_hashes`.
    """
    intensities = np.arange(256)
    brightness = np.empty(len(pixels))
    density = np.empty((len(pixels), 3))
    for row, patch in enumerate(pixels):
        counts = np.stack([np.bincount(patch[..., channel].ravel(), minlength=256) for channel in range(3)])  # [3, 256]
        density[row] = counts @ OPTICAL_DENSITY
        brightness[row] = (counts @ intensities).sum()
    area = pixels.shape[1] * pixels.shape[2]
    density /= area
    stain = density @ UNMIX
    return {
        "brightness": (brightness / (3 * 255 * area)).astype(np.float32),
        "stain_h": stain[:, 0].astype(np.float32),
        "stain_e": stain[:, 1].astype(np.float32),
        "od_r": density[:, 0].astype(np.float32),
        "od_g": density[:, 1].astype(np.float32),
        "od_b": density[:, 2].astype(np.float32),
        "pixel_hash": [hashlib.blake2b(np.ascontiguousarray(patch).data, digest_size=16).hexdigest() for patch in pixels],
        "view_hash": view_hashes(pixels),
    }


def view_hashes(pixels: np.ndarray) -> list[str]:
    """A 64-bit perceptual hash (16 hex digits) that is the same for all 8 dihedral views of a patch; [B, H, H, 3] in.

    Bits are signs of products of low DCT frequencies of the grey image that the views cannot change.
    """
    size = pixels.shape[1]
    grey = pixels @ np.array([1.0, 2.0, 1.0])  # [B, H, H], exact integers
    frequency = np.arange(8)[:, None]
    half = np.rint(128 * np.cos(np.pi * (2 * np.arange((size + 1) // 2) + 1) * frequency / (2 * size)))
    mirrored = half[:, : size // 2][:, ::-1] * np.where(frequency % 2, -1, 1)
    basis = np.concatenate([half, mirrored], axis=1)  # [8, H]
    spectrum = basis @ grey @ basis.T  # [B, 8, 8]
    (u, v), (p, q) = VIEW_PAIRS[:, 0].T, VIEW_PAIRS[:, 1].T
    bits = spectrum[:, u, v] * spectrum[:, p, q] + spectrum[:, v, u] * spectrum[:, q, p] > 0  # [B, 64]
    return [packed.tobytes().hex() for packed in np.packbits(bits, axis=1)]


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
