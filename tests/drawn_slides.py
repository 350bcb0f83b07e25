"""A slide of patches side by side, ready to be written as a heat map."""

import numpy as np
import pandas as pd

from pcam_ssl.heatmap.cells import lay_out, map_numbers
from pcam_ssl.heatmap.outputs import Drawn
from pcam_ssl.slides.space import SlideSpace


def drawn(probs, across: int = 2, name: str = "s", size_px: int = 32, **space) -> Drawn:
    """A slide of patches side by side, `across` in a row, from (100, 40) on, with noise as pixels."""
    probs = np.asarray(probs, float)
    edge = space.setdefault("tile_px", float(size_px))
    at = np.arange(len(probs))
    patches = pd.DataFrame({"wsi": name, "row": at, "x": (100 + edge * (at % across)).astype(int), "prob": probs})
    patches = patches.assign(y=(40 + edge * (at // across)).astype(int), label=pd.array(at % 2, dtype="Int8"))
    known = SlideSpace(**space)
    grid = lay_out(patches, known.tile_px, known.step_px)
    prob_map = grid.means(probs)
    numbers = map_numbers(prob_map, probs, grid.covered_mm2(known.mpp))

    def pixels(rows):
        return np.random.default_rng(0).integers(0, 256, (len(rows), size_px, size_px, 3), np.uint8)

    return Drawn(name, "runs/a", "out of fold: fold 2 never saw this slide", patches, pixels, known, grid, prob_map, numbers)
