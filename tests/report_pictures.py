"""Hand-made pictures of a report: two cases with an explanation and neighbours, and a map of one fold."""

import numpy as np
from explanations import explained

from pcam_ssl.report.cases import Case, FoldMap, Pictures

LIKENESS = {
    "n": 4,
    "k": 10,
    "same_label": {"value": 0.8, "by_chance": 0.5},
    "same_slide": {"value": 0.4, "by_chance": 0.1},
    "silhouette_label": 0.25,
    "silhouette_slide": None,
}


def case(id: str = "0a1b", label: int = 1, prob: float = 0.02, wsi: str | None = "slide-a", size_px: int = 96, **more) -> Case:
    """A patch of fold 1 with an explanation and two neighbours."""
    pixels = np.full((size_px, size_px, 3), 200, np.uint8)
    explanation = explained(id, label=label, wsi=wsi, prob=prob, pixels=pixels)
    known = {
        "explained": explanation,
        "neighbours": explanation.neighbours,
        "neighbour_pixels": explanation.neighbour_pixels,
    } | more
    return Case(id, label, prob, wsi, 1, pixels, **known)


def fold_map(fold: int = 1, slides: tuple = ("a", "a", "b", "c"), of: int = 9, **more) -> FoldMap:
    """Four patches on a line, two of each class."""
    places = np.array([[0.0, 0], [1, 0], [2, 0], [4, 1]])
    known = {"auroc": 0.9, "method": "pca", "neighborhood": LIKENESS} | more
    return FoldMap(fold=fold, places=places, labels=np.array([0, 0, 1, 1]), slides=list(slides), of=of, **known)


def pictures(**changed) -> Pictures:
    """Galleries and a map; everything is there."""
    there = {"no_cases": None, "no_explanations": None, "no_maps": None}
    shown = {"wrong": [case()], "unsure": [case("2c3d", 0, 0.49)], "maps": [fold_map()], "asked": "among 5 labelled patches"}
    return Pictures(**there | shown | changed)
