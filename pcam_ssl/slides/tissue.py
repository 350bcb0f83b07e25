"""Where a slide has tissue: Otsu's threshold on saturation at low magnification, without pen marks."""

import cv2
import numpy as np

from pcam_ssl.slides.pyramid import View

MASK_MPP = 8.0
"""um/px of the thumbnail."""
MEDIAN_PX = 7
LOWEST, HIGHEST = 12, 40
"""Otsu's threshold on saturation (0 to 255) is kept within these. Without tissue it would split the noise of glass, without glass the tissue."""
HOLE_MM2 = 0.01
"""Holes up to this are filled, about a patch of PatchCamelyon."""
PEN_MARGIN_PX = 5
BLACK, GREY = 75, 18
"""A pixel is black ink, or the dark rim of a scan, where its largest channel is below the first, and its channels differ by less than the
second. Dense nuclei are as dark, but purple."""
INKS = {"green": ((35, 90, 0), (92, 255, 255)), "blue": ((93, 130, 0), (122, 255, 255))}
"""Lowest and highest hue (0 to 179), saturation and value of ink. Hematoxylin is more purple, and paler at this magnification."""
OUTLINE = (0, 160, 0)


def thumbnail(view: View) -> np.ndarray:
    """The whole view, uint8 [H, W, 3], read in parts so that a slide without low levels fits in memory."""
    whole = np.empty((view.height, view.width, 3), np.uint8)
    edge = view.largest_px
    for y in range(0, view.height, edge):
        for x in range(0, view.width, edge):
            part = whole[y : y + edge, x : x + edge]
            part[:] = view.read(x, y, part.shape[1], part.shape[0])
    return whole


def tissue_mask(pixels: np.ndarray, mpp: float) -> np.ndarray:
    """Tissue, bool [H, W], of a thumbnail uint8 [H, W, 3] with `mpp` um/px.

    Saturation, median-filtered, above Otsu's threshold (Otsu 1979); small holes filled; pen marks left out with a margin.
    """
    colours = cv2.cvtColor(pixels, cv2.COLOR_RGB2HSV)
    ink = _ink(colours)
    saturation = cv2.medianBlur(colours[..., 1], MEDIAN_PX)
    # Ink is the most saturated of all and would draw the threshold up.
    free = saturation[~ink]
    if not free.size:
        return np.zeros(ink.shape, bool)
    otsu, _ = cv2.threshold(free.reshape(-1, 1), 0, 255, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
    tissue = (saturation > np.clip(otsu, LOWEST, HIGHEST)) & ~ink
    return _filled(tissue, HOLE_MM2 * 1e6 / mpp**2) & ~ink


def outlined(pixels: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """A copy of the thumbnail with the edge of the mask drawn in green."""
    edges, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    return cv2.drawContours(pixels.copy(), edges, -1, OUTLINE, 1 + max(mask.shape) // 1000)


def mean_within(mask: np.ndarray, left, top, edge: float) -> np.ndarray:
    """Mean [N] of a mask [H, W] in squares with corners `left` [N], `top` [N] and this edge, all in its px, parts of pixels included."""
    table = cv2.integral(mask.astype(np.uint8), sdepth=cv2.CV_64F)
    left, top = np.asarray(left, float), np.asarray(top, float)

    def below(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        # Between the corners of pixels the sum grows bilinearly.
        x, y = np.clip(x, 0, mask.shape[1]), np.clip(y, 0, mask.shape[0])
        column, row = np.minimum(x.astype(int), mask.shape[1] - 1), np.minimum(y.astype(int), mask.shape[0] - 1)
        right, down = x - column, y - row
        upper = table[row, column] * (1 - right) + table[row, column + 1] * right
        lower = table[row + 1, column] * (1 - right) + table[row + 1, column + 1] * right
        return upper * (1 - down) + lower * down

    total = below(left + edge, top + edge) - below(left, top + edge) - below(left + edge, top) + below(left, top)
    return total / edge**2


def _ink(colours: np.ndarray) -> np.ndarray:
    """Pen marks, bool [H, W], of HSV pixels, with a margin for their blurred edges."""
    saturation, value = colours[..., 1].astype(int), colours[..., 2].astype(int)
    ink = ((value < BLACK) & (saturation * value < GREY * 255)).astype(np.uint8)
    for low, high in INKS.values():
        ink |= cv2.inRange(colours, low, high) > 0
    ink = cv2.medianBlur(ink, 3)  # single dark pixels are pigment or dust, not a pen
    return cv2.dilate(ink, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (PEN_MARGIN_PX, PEN_MARGIN_PX))) > 0


def _filled(mask: np.ndarray, largest_px: float) -> np.ndarray:
    """The mask with holes of up to `largest_px` px filled. What touches the edge of the image is no hole."""
    count, labels, found, _ = cv2.connectedComponentsWithStats((~mask).astype(np.uint8), connectivity=4)
    left, top, width, height, area = found.T
    inner = (left > 0) & (top > 0) & (left + width < mask.shape[1]) & (top + height < mask.shape[0])
    small = inner & (area <= largest_px)
    small[0] = False  # the mask itself
    return mask | small[labels] if count > 1 else mask
