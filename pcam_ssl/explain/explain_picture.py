"""A patch, what its network looks at, and the patch without its centre or its surround, as pictures. No torch."""

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from pcam_ssl.explain.attribution_facts import CLASSES, Explained
from pcam_ssl.explain.centre import centre_bounds, without_centre, without_surround
from pcam_ssl.explain.explain_text import label_of, percent
from pcam_ssl.render.thumbnails import shorten

PANEL_PX, GAP_PX, HEAD_PX, FOOT_PX = 288, 16, 64, 34
FONT_PX = 18
STRONGEST = 0.7
"""Opacity of the colour where the map is highest."""


def panels(explained: Explained) -> list[tuple[str, np.ndarray, str]]:
    """(what it is, pixels uint8 `[H, H, 3]`, its number in words) of the four pictures of a patch."""
    summary, patch = explained.summary, explained.pixels
    share = "no map" if summary.centre_share is None else f"{percent(summary.centre_share)} in the centre"
    return [
        ("the patch", patch, f"prob {summary.prob:.3f}"),
        (f"what speaks for {CLASSES[summary.call]}", laid_over(patch, summary.map), share),
        ("centre blurred", without_centre(patch[None])[0], f"prob {summary.prob_without_centre:.3f}"),
        ("surround blurred", without_surround(patch[None])[0], f"prob {summary.prob_without_surround:.3f}"),
    ]


def laid_over(patch: np.ndarray, cells: np.ndarray) -> np.ndarray:
    """The map `[h, w]` as colour over the patch in grey: none where it is zero, yellow where it is highest; uint8 `[H, H, 3]`."""
    size_px = len(patch)
    smooth = cv2.resize(np.asarray(cells, np.float32), (size_px, size_px), interpolation=cv2.INTER_LINEAR)
    height = smooth / smooth.max() if smooth.max() > 0 else smooth
    colour = cv2.cvtColor(cv2.applyColorMap(np.uint8(255 * height), cv2.COLORMAP_PLASMA), cv2.COLOR_BGR2RGB)
    grey = cv2.cvtColor(cv2.cvtColor(patch, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    opacity = STRONGEST * np.sqrt(height)[..., None]
    return np.uint8(np.rint(opacity * colour + (1 - opacity) * grey))


def strip(explained: Explained) -> Image.Image:
    """All four pictures side by side with their words: the PNG of a patch."""
    shown = panels(explained)
    width = len(shown) * (PANEL_PX + GAP_PX) + GAP_PX
    image = Image.new("RGB", (width, HEAD_PX + PANEL_PX + FOOT_PX), "white")
    draw, font = ImageDraw.Draw(image), ImageFont.load_default(FONT_PX)
    slide = "slide unknown" if explained.wsi is None else f"slide {shorten(explained.wsi, 40)}"
    draw.text((GAP_PX, 10), f"{shorten(explained.id, 44)}: {label_of(explained.label)}, {slide}", "black", font)
    for n, (name, pixels, words) in enumerate(shown):
        left = GAP_PX + n * (PANEL_PX + GAP_PX)
        draw.text((left, HEAD_PX - 26), name, "#586272", font)
        image.paste(Image.fromarray(pixels).resize((PANEL_PX, PANEL_PX), Image.Resampling.BICUBIC), (left, HEAD_PX))
        low, high = (HEAD_PX + bound * PANEL_PX // len(pixels) for bound in centre_bounds(len(pixels)))
        box = (left + low - HEAD_PX, low, left + high - HEAD_PX, high)
        draw.rectangle(box, outline="black", width=3)
        draw.rectangle(box, outline="white", width=1)
        draw.text((left, HEAD_PX + PANEL_PX + 6), words, "black", font)
    return image
