"""A slide as cells: where patches lie on it, the mean of what lies in a cell, its colour, and the numbers of a map of probs."""

from dataclasses import asdict, dataclass

import numpy as np
import pandas as pd

from pcam_ssl.data.places import cells_of, grid_step
from pcam_ssl.errors import UserError

EMPTY = (228, 231, 236)
NORMAL, MIDDLE, TUMOR = (36, 104, 194), (250, 250, 250), (194, 87, 12)
"""The page's blue and orange, and white between them."""
CALLED = 0.5
"""From this prob on a patch is called tumor."""
FINEST = 8
"""Patches that lie closer than this part of their edge are on no grid; a cell is then as large as a patch."""
MOST_CELLS = 2**24
"""Of one map; colouring them takes 1.5 GB."""


@dataclass(frozen=True)
class Grid:
    """Square cells over the patches of one slide; lengths are px of the coordinates.

    Column and row of each patch are int `[N]`. A patch covers `span` x `span` cells: more than one where patches overlap.
    """

    left: float
    top: float
    cell_px: float
    tile_px: float
    column: np.ndarray
    row: np.ndarray
    span: int

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return int(self.row.max()) + self.span, int(self.column.max()) + self.span

    def means(self, values: np.ndarray) -> np.ndarray:
        """Mean of `values` `[N]` over the patches that cover a cell, float `[H, W]`; NaN where none does."""
        beside = [(down, right) for down in range(self.span) for right in range(self.span)]
        rows = np.concatenate([self.row + down for down, _ in beside])
        columns = np.concatenate([self.column + right for _, right in beside])
        return cell_means((rows, columns), np.tile(values, len(beside)), self.shape)

    def covered_mm2(self, mpp: float | None) -> float | None:
        """Area of a cell that patches cover, mm^2; None where the um/px of the coordinates are unknown."""
        return None if mpp is None else (min(self.cell_px, self.tile_px) * mpp / 1000) ** 2


def lay_out(rows: pd.DataFrame, tile_px: float, step_px: float | None = None) -> Grid:
    """The grid of one slide's patches (columns wsi, x, y), whose edge is `tile_px`. `step_px` is their distance; found where it is None.

    Raises UserError where it has more than `MOST_CELLS` cells.
    """
    if step_px is None:
        steps = [grid_step(rows, axis) for axis in ("x", "y") if rows[axis].nunique() > 1]
        step_px = min(steps, default=tile_px)
        area_px = float(np.ptp(rows.x) + tile_px) * float(np.ptp(rows.y) + tile_px)
        step_px = tile_px if step_px < tile_px / FINEST or area_px > MOST_CELLS * step_px**2 else step_px
    cells, left, top = cells_of(rows, step_px), float(rows.x.min()), float(rows.y.min())
    column, row = cells.column.to_numpy(), cells.row.to_numpy()
    grid = Grid(left, top, float(step_px), float(tile_px), column, row, max(1, round(tile_px / step_px)))
    if grid.shape[0] * grid.shape[1] > MOST_CELLS:
        raise UserError(
            f"slide {rows.wsi.iloc[0]}: its map would have {grid.shape[0]:,} x {grid.shape[1]:,} cells of {step_px:g} px, too many;"
            " check its coordinates, or cut it with a larger --stride"
        )
    return grid


def cell_means(places: tuple[np.ndarray, np.ndarray], values: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Mean of `values` `[N]` in each cell, float `shape`, from row and column of each value; NaN without one."""
    total, count = np.zeros(shape), np.zeros(shape)
    np.add.at(total, places, values)
    np.add.at(count, places, 1)
    return np.divide(total, count, out=np.full(shape, np.nan), where=count > 0)


def coloured(values: np.ndarray) -> np.ndarray:
    """Pixels uint8 `[H, W, 3]` of values in [0, 1]: blue at 0, white at 0.5, orange at 1, grey where NaN."""
    known = np.nan_to_num(values, nan=0.5)[..., None]
    low, middle, high = (np.array(colour, float) for colour in (NORMAL, MIDDLE, TUMOR))
    ramp = np.where(known < 0.5, low + (middle - low) * 2 * known, middle + (high - middle) * (2 * known - 1))
    return np.where(np.isnan(values)[..., None], np.array(EMPTY, float), ramp).round().astype(np.uint8)


@dataclass(frozen=True)
class Numbers:
    """What a map of probs says of its slide. `lesion_mm2` is None where the um/px are unknown."""

    tiles: int
    share: float
    """Of the area that patches cover, how much has a prob of `CALLED` or more."""
    lesion_cells: int
    lesion_mm2: float | None
    """The largest lesion: cells called tumor that touch, corners included."""
    maximum: float
    percentile_99: float
    """Of the probs of patches."""

    def to_dict(self) -> dict:
        """As JSON values."""
        return asdict(self)


def map_numbers(prob_map: np.ndarray, probs: np.ndarray, cell_mm2: float | None) -> Numbers:
    """The numbers of a map `[H, W]` (NaN: no patch) and of the probs of its patches `[N]`; a cell covers `cell_mm2`."""
    lesion = largest_lesion(prob_map)
    return Numbers(
        tiles=len(probs),
        share=float((prob_map >= CALLED).sum() / (~np.isnan(prob_map)).sum()),
        lesion_cells=lesion,
        lesion_mm2=None if cell_mm2 is None else lesion * cell_mm2,
        maximum=float(probs.max()),
        percentile_99=float(np.quantile(probs, 0.99)),
    )


def largest_lesion(prob_map: np.ndarray) -> int:
    """Cells of the largest 8-connected area with a prob of `CALLED` or more."""
    from scipy.ndimage import label

    # NaN is not at least CALLED, so cells without a patch separate lesions.
    areas, count = label(prob_map >= CALLED, structure=np.ones((3, 3)))
    return int(np.bincount(areas.ravel())[1:].max()) if count else 0
