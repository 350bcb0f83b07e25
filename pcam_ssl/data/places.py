"""Where patches lie on their slides: the step of their grid, and the mean of the eight patches around each."""

from itertools import product

import numpy as np
import pandas as pd

AROUND = [(down, right) for down, right in product((-1, 0, 1), repeat=2) if (down, right) != (0, 0)]


def grid_step(rows: pd.DataFrame, axis: str) -> int:
    """The smallest distance of patches of one slide along an axis, px at the level of the coordinates; 1 where there is none."""
    places = rows[["wsi", axis]].drop_duplicates().sort_values(["wsi", axis])
    gaps = places[axis].astype("int64").diff()[places.wsi == places.wsi.shift()]
    return int(gaps.min()) if len(gaps) else 1


def cells_of(rows: pd.DataFrame, step_px: "float | pd.Series") -> pd.DataFrame:
    """Slide number, row and column (int64) of each patch on the grid of its slide; `step_px` is the grid's, one for all or one a patch.

    `rows` has wsi, x and y, all known.
    """
    slide = rows.groupby("wsi", sort=False).ngroup().to_numpy()
    cells = {"slide": slide}
    for name, axis in (("row", "y"), ("column", "x")):
        place = rows[axis].astype("float64")
        cells[name] = np.rint((place - place.groupby(slide).transform("min")) / step_px).to_numpy(np.int64)
    return pd.DataFrame(cells, index=rows.index)


def means_around(cells: pd.DataFrame, values: np.ndarray) -> np.ndarray:
    """Mean of `values` `[N]` over the up to 8 cells that touch a patch's own, corners included; NaN where they hold no patch. float64 `[N]`.

    A cell of several patches counts with their mean. Time and memory grow with N, not with the area of the slides.
    """
    width = int(cells.column.max()) + 3
    height = int(cells.row.max()) + 3
    # Each grid has an empty margin, so that no cell beyond an edge is one of the next row or slide.
    keys = (cells.slide.to_numpy(np.int64) * height + cells.row.to_numpy() + 1) * width + cells.column.to_numpy() + 1
    known, place, count = np.unique(keys, return_inverse=True, return_counts=True)
    means = np.bincount(place, weights=values) / count
    total, found = np.zeros(len(known)), np.zeros(len(known))
    for down, right in AROUND:
        wanted = known + down * width + right
        at = np.searchsorted(known, wanted).clip(max=len(known) - 1)
        there = known[at] == wanted
        total += np.where(there, means[at], 0)
        found += there
    return np.divide(total, found, out=np.full(len(known), np.nan), where=found > 0)[place]
