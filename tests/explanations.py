"""A hand-written explanation of a patch."""

import numpy as np

from pcam_ssl.explain.explanation import Explained, Summary

INFO = {"dataset": "data/set", "dataset_digest": "d" * 64, "recipe_digest": "e" * 64}


def explained(
    id: str = "0a1b",
    label: int | None = 1,
    wsi: str | None = "slide-a",
    prob: float = 0.9,
    share: float | None = 0.4,
    pixels: np.ndarray | None = None,
    **more,
) -> Explained:
    """A patch of fold 2 with two neighbours; blurring its centre flips its call."""
    cells = np.zeros((3, 3)) if share is None else np.full((3, 3), (1 - share) / 8)
    cells[1, 1] = share or 0
    summary = Summary(prob, 1 - prob, prob, share, None if share is None else 0.75, 7, 8, cells)
    pixels = np.full((96, 96, 3), 200, np.uint8) if pixels is None else pixels
    neighbours = [
        {"rank": 1, "cosine": 0.99, "id": "n0", "label": 1, "prob": 0.8, "wsi": wsi and f"{wsi}-b", "split": "train"},
        {"rank": 2, "cosine": 0.98, "id": "n1", "label": 0, "prob": None, "wsi": None, "split": "train"},
    ]
    fields = {
        "run_prob": prob,
        "folds": (2,),
        "learned": None,
        "neighbours": neighbours,
        "neighbour_pixels": [pixels, pixels],
    } | more
    return Explained(id=id, label=label, wsi=wsi, split="train", summary=summary, pixels=pixels, **fields)
