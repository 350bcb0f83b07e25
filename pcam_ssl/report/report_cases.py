"""The patches that a report shows: the surest wrong and the least sure, with their pixels. No torch."""

import numpy as np
import pandas as pd

from pcam_ssl.data.dataset import Dataset
from pcam_ssl.report.cases import Case, Pictures, least_sure, surest_wrong


def shown_cases(scored: pd.DataFrame, dataset: Dataset) -> Pictures:
    """Both galleries from labelled out-of-fold Predictions; no network is asked."""
    return Pictures(wrong=_cases(surest_wrong(scored), dataset), unsure=_cases(least_sure(scored), dataset), no_cases=None)


def _cases(rows: pd.DataFrame, dataset: Dataset) -> list[Case]:
    places = pd.Index(dataset.patches.id).get_indexer(rows.id)
    return [
        Case(
            id=row.id,
            label=int(row.label),
            prob=float(row.prob),
            wsi=None if pd.isna(row.wsi) else row.wsi,
            fold=int(row.fold),
            pixels=np.asarray(dataset.pixels[place]),
        )
        for row, place in zip(rows.itertuples(), places, strict=True)
    ]
