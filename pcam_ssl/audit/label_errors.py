"""Labels that the network and its neighbours both doubt."""

import numpy as np
import pandas as pd


def suspicious_labels(oof: pd.DataFrame, knn: pd.DataFrame | None = None) -> pd.DataFrame:
    """Labels that every out-of-fold opinion contradicts, the most suspicious first: Predictions in, one row per doubted id out.

    The doubt of an opinion is the calibrated prob it gives to the class that is not the label, the opposite of the self-confidence
    that Northcutt et al. 2021 (arXiv:1911.00068) rank by. A label is doubted where each opinion's doubt is above 1/2; rank follows
    the product of the doubts, so both must be sure. Probs come from networks that never saw the patch's slide, so a network cannot
    have learnt the wrong label by heart. `knn` are the Predictions of the neighbours; without them the network judges alone.
    Columns: `id`, `label`, `wsi`, `fold`, `loss` (of the network, nats), `doubt_network`, `doubt_knn` (NA without), `doubt`.
    """
    oof = oof[oof["label"].notna()]
    found = oof[["id", "label", "wsi", "fold"]].assign(doubt_network=_label_error(oof))
    # 1 - prob of the label, in which a prob of exactly 0 would make the loss infinite.
    found["loss"] = -np.log1p(-found["doubt_network"].clip(upper=1 - 1e-15))
    if knn is None:
        found["doubt_knn"], found["doubt"] = np.nan, found["doubt_network"]
        certain = found["doubt_network"] > 0.5
    else:
        found["doubt_knn"] = pd.Series(_label_error(knn).to_numpy(), index=knn["id"]).reindex(found["id"]).to_numpy()
        found["doubt"] = found["doubt_network"] * found["doubt_knn"]
        certain = (found["doubt_network"] > 0.5) & (found["doubt_knn"] > 0.5)
    columns = ["id", "label", "wsi", "fold", "loss", "doubt_network", "doubt_knn", "doubt"]
    return found[certain].sort_values(["doubt", "id"], ascending=[False, True])[columns].reset_index(drop=True)


def _label_error(predictions: pd.DataFrame) -> pd.Series:
    """Prob of the class that is not the label."""
    return predictions["prob"].where(predictions["label"] == 0, 1 - predictions["prob"])
