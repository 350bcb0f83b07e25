"""Which level of a slide serves a resolution, and regions at exactly that resolution."""

import math
from dataclasses import dataclass

import numpy as np
from PIL import Image

from pcam_ssl.errors import UserError
from pcam_ssl.slides.reader import Slide

FITS = 0.01
"""A level within this of the wanted mpp, relative, is taken as it is."""
LANCZOS_PX = 3
"""Lanczos looks this many output px to each side; without them regions would differ where they meet."""
SOURCE_PX = 1536
"""Edge of the largest region read at once: 9 MB of RGBA."""


@dataclass(frozen=True)
class View:
    """A slide seen at one resolution: an image of `width` x `height` px, of which regions are read.

    Pixel i covers `step` px of level 0, from i * step on. `ratio` is px of `level` for each of its px; 1 where the level is taken as it
    is. `mpp` is that of the view (um/px).
    """

    slide: Slide
    level: int
    ratio: float
    mpp: float

    @property
    def step(self) -> float:
        return self.ratio * self.slide.levels[self.level].downsample

    @property
    def width(self) -> int:
        return int(self.slide.levels[self.level].width / self.ratio + 1e-6)

    @property
    def height(self) -> int:
        return int(self.slide.levels[self.level].height / self.ratio + 1e-6)

    @property
    def largest_px(self) -> int:
        """Edge of the largest region to read at once."""
        return max(1, int(SOURCE_PX / self.ratio))

    def read(self, x: int, y: int, width: int, height: int) -> np.ndarray:
        """Pixels uint8 [height, width, 3]; `x`, `y` are px of the view. A pixel is the same in every region, within 1 of 255."""
        down = self.slide.levels[self.level].downsample
        if self.ratio == 1:
            return self.slide.read(self.level, round(x * down), round(y * down), width, height)
        level = self.slide.levels[self.level]
        (left, begin_x, wide), (top, begin_y, tall) = self._span(x, width, level.width), self._span(y, height, level.height)
        pixels = Image.fromarray(self.slide.read(self.level, begin_x, begin_y, wide, tall))
        # Pillow chooses which direction comes first by the region's shape, and what overshoots is cut off in between.
        pixels = pixels.resize((width, tall), Image.Resampling.LANCZOS, box=(left, 0, left + width * self.ratio, tall))
        box = (0, top, width, top + height * self.ratio)
        return np.asarray(pixels.resize((width, height), Image.Resampling.LANCZOS, box=box))

    def _span(self, start: int, count: int, edge: int) -> tuple[float, int, int]:
        """For `count` px from `start` on: where they begin in the source region, where that begins (px at level 0), how many px it has.

        It ends at the level's `edge`, so that nothing of what lies beyond is mixed in.
        """
        down = self.slide.levels[self.level].downsample
        margin = LANCZOS_PX * self.ratio + 1
        begin = round(max(0, math.floor(start * self.ratio - margin)) * down)
        inside = start * self.ratio - begin / down
        return inside, begin, min(math.ceil(inside + count * self.ratio + margin), edge - round(begin / down))


def view_at(slide: Slide, mpp: float, slide_mpp: float) -> View:
    """The slide at `mpp`, from the coarsest level that is at least as fine. `slide_mpp` is that of level 0 (um/px).

    A level within 1 % is taken as it is. Raises UserError where level 0 is coarser than wanted.
    """
    found = [slide_mpp * level.downsample for level in slide.levels]
    fitting = [number for number, each in enumerate(found) if abs(each / mpp - 1) <= FITS]
    if fitting:
        return View(slide, fitting[0], 1, found[fitting[0]])
    fine = [number for number, each in enumerate(found) if each < mpp]
    if not fine:
        raise UserError(
            f"{slide.path}: its finest level has {slide_mpp:g} um/px, coarser than --mpp {mpp:g}; give --mpp {slide_mpp:g}"
        )
    level = max(fine, key=lambda number: found[number])
    return View(slide, level, mpp / found[level], mpp)
