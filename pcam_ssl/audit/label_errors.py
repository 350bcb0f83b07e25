"""Suspicious labels: out-of-fold predictions of network and kNN both contradict them."""

import numpy as np
import pandas as pd


def suspicious_labels(oof: pd.DataFrame, knn: pd.DataFrame | None = None) -> pd.DataFrame:
    """Labels that all out-of-fold Predictions contradict, one row per label, the most suspicious first.

    The doubt is the calibrated prob of the class that is not the label, that is 1 minus the self-confidence by which Northcutt et al.
    2021 (arXiv:1911.00068) rank. A label is suspicious where the doubt of network and kNN is above 1/2 each; rows are ranked by the
    product of both, so both must be confident. The networks never saw the patch's slide, so none can have memorised a wrong label.
    `oof` and `knn` are Predictions; without `knn` the network decides alone.
    Columns: `id`, `label`, `wsi`, `fold`, `loss` (of the network, nats), `doubt_network`, `doubt_knn` (NA without), `doubt`.
    """
    oof = oof[oof["label"].notna()]
    labels = oof[["id", "label", "wsi", "fold"]].assign(doubt_network=_prob_of_error(oof))
    # Clipped, since a prob of exactly 0 for the label would make the loss infinite.
    labels["loss"] = -np.log1p(-labels["doubt_network"].clip(upper=1 - 1e-15))
    if knn is None:
        labels["doubt_knn"], labels["doubt"] = np.nan, labels["doubt_network"]
        contradicted = labels["doubt_network"] > 0.5
    else:
        labels["doubt_knn"] = pd.Series(_prob_of_error(knn).to_numpy(), index=knn["id"]).reindex(labels["id"]).to_numpy()
        labels["doubt"] = labels["doubt_network"] * labels["doubt_knn"]
        contradicted = (labels["doubt_network"] > 0.5) & (labels["doubt_knn"] > 0.5)
    columns = ["id", "label", "wsi", "fold", "loss", "doubt_network", "doubt_knn", "doubt"]
    return labels[contradicted].sort_values(["doubt", "id"], ascending=[False, True])[columns].reset_index(drop=True)


def _prob_of_error(predictions: pd.DataFrame) -> pd.Series:
    """Prob of the class that is not the label."""
    return predictions["prob"].where(predictions["label"] == 0, 1 - predictions["prob"])
