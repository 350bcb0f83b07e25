"""Maps of slides: where on a slide the scored patches lie, with their label and their prob of tumor, worst slides first."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from pcam_ssl.data.dataset import Dataset
from pcam_ssl.data.places import grid_step
from pcam_ssl.evaluation.metrics import auroc, nll
from pcam_ssl.heatmap.cells import EMPTY, cell_means, coloured
from pcam_ssl.render.document import Card, Gallery, Legend, Line, Paragraph, Picture, Section
from pcam_ssl.render.format import three
from pcam_ssl.render.html import encoded, shorten

SHOWN = 24
"""The number of slides on a page."""
FEW = 10
MOST_CELLS = 64
"""Cells along the longer side of a map."""
SIDE_PX = 96
"""The longer side of a map as it is shown."""


@dataclass(frozen=True)
class SlideMap:
    """One slide: its patches on a grid of cells. Cells without a patch are NaN."""

    wsi: str
    n: int
    n_tumor: int
    nll: float
    auroc: float | None
    prob: np.ndarray
    """Mean prob of tumor, out of fold, float `[H, W]`."""
    truth: np.ndarray
    """Share of tumor patches, float `[H, W]`."""

    def to_dict(self) -> dict:
        """Everything except the map, as JSON values."""
        return {"wsi": self.wsi, "patches": self.n, "tumor": self.n_tumor, "nll": self.nll, "auroc": self.auroc}


def slide_maps(scored: pd.DataFrame, dataset: Dataset) -> list[SlideMap]:
    """A map of each slide whose patches have coordinates, the slide of highest mean NLL first; `scored` are labelled Predictions.

    Slides with fewer than `FEW` patches come last, since their mean says little. Empty where the dataset has no coordinates.
    """
    places = dataset.patches[["id", "x", "y"]].dropna()
    rows = scored[scored.wsi.notna()].merge(places, on="id")
    if rows.empty:
        return []
    step = min(grid_step(rows, axis) for axis in ("x", "y"))
    maps = [_map(wsi, patches, step) for wsi, patches in rows.groupby("wsi", sort=True)]
    return sorted(maps, key=lambda each: (each.n < FEW, -each.nll, each.wsi))


def _map(wsi: str, rows: pd.DataFrame, step: int) -> SlideMap:
    x, y = (rows[axis].to_numpy(np.int64) - int(rows[axis].min()) for axis in ("x", "y"))
    cell = max(step, -(-(max(x.max(), y.max()) + 1) // MOST_CELLS))
    shape, places = (y.max() // cell + 1, x.max() // cell + 1), (y // cell, x // cell)
    labels, probs = rows.label.to_numpy(np.int64), rows.prob.to_numpy(np.float64)
    return SlideMap(
        wsi=wsi,
        n=len(rows),
        n_tumor=int(labels.sum()),
        nll=nll(labels, probs),
        auroc=auroc(labels, probs),
        prob=cell_means(places, probs, shape),
        truth=cell_means(places, labels.astype(float), shape),
    )


def slide_maps_section(maps: list[SlideMap]) -> Section | None:
    """The maps of the worst slides; None where patches have no coordinates."""
    if not maps:
        return None
    note = (
        "Left: labels. Right: prob of tumor, out of fold. A cell is a patch, or several where the slide is large; grey cells hold none."
        f" The slide of highest mean NLL first, slides with fewer than {FEW} patches last: look for lesions that are missed whole, and for single cells that stand alone."
    )
    count = "" if len(maps) <= SHOWN else f" {SHOWN} of {len(maps):,} slides are shown; scores.json has the scores of all."
    return Section(
        blocks=(
            Paragraph(note + count, "note"),
            Legend([("circle", "c1", "normal, or prob 0"), ("circle", "c2", "tumor, or prob 1")]),
            Gallery([_card(each) for each in maps[:SHOWN]], "cases"),
        )
    )


def _card(each: SlideMap) -> Card:
    name = f"slide {each.wsi}"
    pictures = [
        _picture(each.truth, f"{name}: labels of {each.n:,} patches, {each.n_tumor:,} of them tumor"),
        _picture(each.prob, f"{name}: prob of tumor"),
    ]
    lines = [
        Line(shorten(name, 30), strong=True, title=name),
        f"{each.n_tumor:,} of {each.n:,} patches tumor",
        f"NLL {three(each.nll)}, AUROC {three(each.auroc)}",
    ]
    return Card(pictures, lines)


def _picture(values: np.ndarray, words: str) -> Picture:
    """The cells of a map as squares, as large as fits, in the middle of a square picture."""
    side = max(1, SIDE_PX // max(values.shape))
    cells = coloured(values).repeat(side, axis=0).repeat(side, axis=1)
    edge = max(cells.shape[:2])
    pixels = np.full((edge, edge, 3), EMPTY, np.uint8)
    top, left = ((edge - length) // 2 for length in cells.shape[:2])
    pixels[top : top + cells.shape[0], left : left + cells.shape[1]] = cells
    return Picture(encoded(pixels, "png"), "png", words, edge, edge)
