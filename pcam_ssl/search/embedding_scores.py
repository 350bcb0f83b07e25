"""How well the nearest labelled patches of other slides tell a patch's label: kNN scores of embeddings, without training."""

from typing import Any

import pandas as pd

from pcam_ssl.errors import UserError
from pcam_ssl.evaluation.scores import score_report
from pcam_ssl.neighbors.exclusion import leave_out
from pcam_ssl.neighbors.index import build_index
from pcam_ssl.neighbors.knn import knn_predictions

RESAMPLES = 2000


def knn_scores(embeddings, patches: pd.DataFrame) -> dict[str, Any]:
    """A score report for each split with labels; embeddings `[N, D]` stand in the order of `patches`.

    The gallery is the labelled train split, or the labelled patches of all splits where it has none. No query finds a patch of
    its own slide, nor, where slides are unknown, its duplicates. k and temperature are the defaults of `inference.knn`.
    Raises UserError where too few patches have a label.
    """
    labelled = patches.label.notna()
    member = labelled & (patches.split == "train")
    member = member if member.any() else labelled
    if not member.any():
        raise UserError("--knn: no patch of the source has a label; embed a source with labels, or leave --knn out")
    gallery = build_index(embeddings[member.to_numpy()], patches[member])
    reports = {}
    for split in patches.split[labelled].unique():
        asked = labelled & (patches.split == split)
        rows = patches[asked].reset_index(drop=True)
        table = knn_predictions(gallery, embeddings[asked.to_numpy()], rows, 0, exclude=leave_out(gallery, rows))
        reports[split] = score_report(table, rows.wsi if rows.wsi.notna().all() else None, RESAMPLES)
    return reports
