"""What is cut from a slide: the tiles that hold tissue, their labels, and the regions they are read in."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from pcam_ssl.errors import UserError
from pcam_ssl.slides.annotations import share_within, tumor_area
from pcam_ssl.slides.pyramid import View, view_at
from pcam_ssl.slides.reader import Slide, open_slide
from pcam_ssl.slides.tissue import MASK_MPP, mean_within, thumbnail, tissue_mask

LARGEST_PX = 2**20
"""Edge and distance of patches at most; no slide is larger."""
CENTRE = 3
"""The centre that decides a label is this part of the edge: 32 of 96 px, as in PatchCamelyon."""


@dataclass(frozen=True)
class Cutting:
    """How slides are cut; lengths are px of the tiles, `mpp` um/px. `assume_mpp` is that of level 0 where a slide does not say it."""

    size_px: int = 96
    mpp: float = 0.97
    stride_px: int = 96
    tissue: float = 0.5
    assume_mpp: float | None = None

    def check(self) -> None:
        """Raises UserError for a value out of range."""
        for option, value, low in (("size", self.size_px, 32), ("stride", self.stride_px, 1)):
            if not low <= value <= LARGEST_PX:
                raise UserError(f"--{option} {value}: is not between {low} and {LARGEST_PX:,}; give px of the patches")
        check_mpp("mpp", self.mpp)
        check_mpp("assume-mpp", self.assume_mpp)
        if not 0 < self.tissue <= 1:
            raise UserError(f"--tissue {self.tissue:g}: is not a share; give a number above 0, up to 1")


def check_mpp(option: str, mpp: float | None) -> None:
    """Raises UserError for microns per pixel that no slide has."""
    if mpp is not None and not 0 < mpp < 100:
        raise UserError(f"--{option} {mpp:g}: is not between 0 and 100; give microns per pixel")


@dataclass(frozen=True, eq=False)
class Plan:
    """One slide to be cut. `tiles` has the columns column, row (px of the view), x, y (px at level 0), tissue_share, tumor_share."""

    view: View
    cutting: Cutting
    tiles: pd.DataFrame
    thumbnail_mpp: float

    @property
    def slide(self) -> Slide:
        return self.view.slide

    @property
    def slide_mpp(self) -> float:
        """um/px of level 0."""
        return self.view.mpp / self.view.step

    def reopened(self) -> "Plan":
        """The same plan of the slide opened anew. Hundreds of open slides would take gigabytes."""
        return replace(self, view=replace(self.view, slide=open_slide(self.slide.path)))

    def regions(self) -> Iterator[np.ndarray]:
        """Row numbers [B] of the tiles that are read together, so that a compressed tile of the file is decoded once, not for each."""
        size, stride = self.cutting.size_px, self.cutting.stride_px
        # Tiles with gaps between them are read alone.
        together = max(1, (self.view.largest_px - size) // stride + 1) if stride <= size else 1
        column, row = (self.tiles[name].to_numpy() // stride // together for name in ("column", "row"))
        order = np.lexsort((column, row))
        ends = np.flatnonzero((np.diff(column[order]) != 0) | (np.diff(row[order]) != 0)) + 1
        yield from np.split(order, ends)

    def read(self, rows: np.ndarray) -> np.ndarray:
        """Pixels uint8 [B, H, H, 3] of the tiles in these rows. Raises UserError where the slide is damaged there."""
        size = self.cutting.size_px
        columns, lines = self.tiles["column"].to_numpy()[rows], self.tiles["row"].to_numpy()[rows]
        left, top = columns.min(), lines.min()
        region = self.view.read(int(left), int(top), int(columns.max() - left) + size, int(lines.max() - top) + size)
        corners = zip(columns - left, lines - top, strict=True)
        return np.stack([region[y : y + size, x : x + size] for x, y in corners])


def plan_slide(
    slide: Slide, cutting: Cutting, annotations: Path | None, classes: Mapping[str, int]
) -> tuple[Plan, np.ndarray, np.ndarray]:
    """Find a slide's tissue and the tiles on it, by rows from the top; label them where it has annotations.

    Returns the plan, the thumbnail uint8 [H, W, 3] and its tissue, bool [H, W]. Raises UserError where the slide does not say its mpp, is
    coarser than wanted, holds no tissue, or its annotations do not hold.
    """
    mpp = slide.mpp if cutting.assume_mpp is None else cutting.assume_mpp
    if mpp is None:
        raise UserError(f"{slide.path}: does not say its microns per pixel; give those of level 0 with --assume-mpp")
    view = view_at(slide, cutting.mpp, mpp)
    area = None if annotations is None else tumor_area(annotations, slide, classes)
    small = view_at(slide, max(MASK_MPP, mpp), mpp)
    pixels = thumbnail(small)
    mask = tissue_mask(pixels, small.mpp)
    size, stride = cutting.size_px, cutting.stride_px
    column, row = np.meshgrid(np.arange(0, view.width - size + 1, stride), np.arange(0, view.height - size + 1, stride))
    column, row = column.ravel(), row.ravel()
    shrink = view.step / small.step
    share = mean_within(mask, column * shrink, row * shrink, size * shrink)
    if not len(share):
        raise UserError(
            f"{slide.path}: has {view.width:,} x {view.height:,} px at {view.mpp:g} um/px, less than a patch of {size:,} px; give a smaller --size"
        )
    held = share >= cutting.tissue - 1e-9
    if not held.any():
        raise UserError(
            f"{slide.path}: none of {len(share):,} tiles holds {cutting.tissue:.0%} tissue; lower --tissue, or leave the slide out"
        )
    column, row = column[held], row[held]
    tiles = pd.DataFrame({"column": column, "row": row, "tissue_share": share[held]})
    tiles["x"], tiles["y"] = np.rint(column * view.step).astype(int), np.rint(row * view.step).astype(int)
    tiles["tumor_share"] = np.nan if area is None else _tumor_share(area, tiles, view, size)
    tiles = tiles.astype({name: "float32" if name.endswith("share") else "int32" for name in tiles})
    return Plan(view, cutting, tiles, small.mpp), pixels, mask


def _tumor_share(area, tiles: pd.DataFrame, view: View, size_px: int) -> np.ndarray:
    """Share [N] of tumor in the centres of tiles."""
    centre = size_px // CENTRE
    margin = (size_px - centre) / 2
    left, top = ((tiles[name].to_numpy() + margin) * view.step for name in ("column", "row"))
    return share_within(area, left, top, centre * view.step)
