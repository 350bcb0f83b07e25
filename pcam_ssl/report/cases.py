"""The patches that a report shows: the most confident errors and the least confident calls, with explanations, neighbours and maps."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from pcam_ssl.data.dataset import Dataset
from pcam_ssl.explain.explanation import Explained
from pcam_ssl.report.slide_maps import SlideMap, slide_maps
from pcam_ssl.tables import CLASSES

SHOWN = 12
LATER = "this needs the run's networks; `pcam-ssl report RUN` adds it"


@dataclass(frozen=True)
class Case:
    """A scored patch and its prediction; `explained` and the neighbours are empty where the networks were not used."""

    id: str
    label: int
    prob: float
    """Calibrated, out of fold, of class 1."""
    wsi: str | None
    fold: int
    pixels: np.ndarray
    """uint8 `[H, H, 3]`."""
    explained: Explained | None = None
    neighbours: list[dict[str, Any]] = field(default_factory=list)
    """`rank`, `cosine`, `id`, `label`, `prob`, `wsi`, `split`; nearest first."""
    neighbour_pixels: list[np.ndarray] = field(default_factory=list)

    @property
    def call(self) -> str:
        """The predicted class: tumor from prob 0.5."""
        return CLASSES[int(self.prob >= 0.5)]

    def to_dict(self) -> dict[str, Any]:
        """Everything except the pictures, as JSON values."""
        known = {"id": self.id, "label": self.label, "prob": self.prob, "wsi": self.wsi, "fold": self.fold, "call": self.call}
        summary = self.explained and self.explained.summary
        share = summary and {"centre_share": summary.centre_share, "view_agreement": summary.view_agreement}
        return {**known, "explained": share, "neighbours": self.neighbours}


@dataclass(frozen=True)
class FoldMap:
    """Patches that a fold scored, projected to two dimensions from the embedding of that fold's network."""

    fold: int
    auroc: float | None
    places: np.ndarray
    """Float `[N, 2]`."""
    labels: np.ndarray
    slides: list[str | None]
    of: int
    """Number of patches that the fold scored; the map shows a sample of them."""
    method: str
    neighborhood: dict[str, Any]
    """See `neighbors.embedding_map.neighborhood_scores`."""

    def to_dict(self) -> dict[str, Any]:
        """Everything except the positions, as JSON values."""
        return {
            "fold": self.fold,
            "auroc": self.auroc,
            "method": self.method,
            "patches": len(self.labels),
            "of": self.of,
            **self.neighborhood,
        }


@dataclass(frozen=True)
class Pictures:
    """Galleries and maps; each `no_...` is the reason why its part is missing, or None."""

    wrong: list[Case] = field(default_factory=list)
    unsure: list[Case] = field(default_factory=list)
    maps: list[FoldMap] = field(default_factory=list)
    slides: list[SlideMap] = field(default_factory=list)
    asked: str = ""
    """The patches among which neighbours were searched, in words."""
    no_cases: str | None = LATER
    no_explanations: str | None = LATER
    no_maps: str | None = LATER

    def to_dict(self) -> dict[str, Any]:
        """Everything except the pictures, as JSON values."""
        return {
            "surest_wrong": [case.to_dict() for case in self.wrong],
            "least_sure": [case.to_dict() for case in self.unsure],
            "maps": [each.to_dict() for each in self.maps],
            "slides": [each.to_dict() for each in self.slides],
        }


def confident_errors(scored: pd.DataFrame, n: int = SHOWN) -> pd.DataFrame:
    """Labelled Predictions on the wrong side of prob 0.5, the most confident first; ties by id."""
    wrong = scored[(scored.prob >= 0.5) != (scored.label == 1)]
    return _sorted(wrong, -(wrong.prob - 0.5).abs(), n)


def least_confident(scored: pd.DataFrame, n: int = SHOWN) -> pd.DataFrame:
    """Labelled Predictions, the nearest to prob 0.5 first; ties by id."""
    return _sorted(scored, (scored.prob - 0.5).abs(), n)


def _sorted(rows: pd.DataFrame, key: pd.Series, n: int) -> pd.DataFrame:
    return rows.assign(key=key).sort_values(["key", "id"], kind="stable").head(n).drop(columns="key")


def shown_cases(scored: pd.DataFrame, dataset: Dataset) -> Pictures:
    """Both galleries and the maps of slides from labelled out-of-fold Predictions, without the networks."""
    return Pictures(
        wrong=_cases(confident_errors(scored), dataset),
        unsure=_cases(least_confident(scored), dataset),
        slides=slide_maps(scored, dataset),
        no_cases=None,
    )


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
