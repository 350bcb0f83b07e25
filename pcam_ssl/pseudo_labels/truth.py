"""How right the pseudo-labels of a trail are, where the truth is known. For reports; no selection reads it. No torch."""

import pandas as pd

from pcam_ssl.evaluation.proportions import share_interval
from pcam_ssl.pseudo_labels.columns import CLASSES
from pcam_ssl.pseudo_labels.sureness import called


def added_scores(trail: pd.DataFrame, truth: pd.DataFrame, level: float = 0.95) -> dict:
    """Precision and coverage of a trail (of one fold or several), by class and over all.

    `truth` has `id` (repeats are one patch), `label` (NA where unknown), `wsi`; trail rows without a known label are left aside.
    Precision of class c: of the patches added as c, the share that is truly c. Coverage of class c: of the pool's patches that are
    truly c, the share that was added, with whatever label; over all: of the pool's patches, the share that was added.
    Returns {"known": patches of known label, "added": those added, "precision": {normal, tumor, all}, "coverage": the same}, each
    score with value, low, high, right and n as in `share_interval`: two-sided at `level`, clustered by slide, or by patch where the
    slide is unknown. Where there is no row, the value is None and `reason` says why.
    """
    truth = truth.loc[truth.label.notna(), ["id", "label", "wsi"]].drop_duplicates("id")
    known = trail[["id", "label"]].merge(truth.rename(columns={"label": "true"}), on="id")
    # A patch stands in the trail once a fold, which is no further evidence.
    clusters = ("slide " + known.wsi.astype("str")).where(known.wsi.notna(), "patch " + known.id.astype("str"))
    added, true, as_called = known.label.notna(), known.true.astype("int8"), called(known.label)
    precision, coverage = {}, {}
    for name, by_label, by_truth in _classes(as_called, true):
        rows = added & by_label
        precision[name] = _score((as_called == true)[rows], clusters[rows], level, len(known), f"no {name}patch was added")
        coverage[name] = _score(added[by_truth], clusters[by_truth], level, len(known), f"no {name}patch is in the pool")
    return {
        "known": len(known),
        "added": int(added.sum()),
        "precision": {name.strip() or "all": score for name, score in precision.items()},
        "coverage": {name.strip() or "all": score for name, score in coverage.items()},
    }


def _classes(as_called, true):
    """Each class as the word before 'patch', the rows called it, and the rows truly it; '' is all."""
    for label, name in enumerate(CLASSES):
        yield name + " ", as_called == label, true == label
    yield "", True, pd.Series(True, index=true.index)


def _score(right: pd.Series, clusters: pd.Series, level: float, n_known: int, reason: str) -> dict:
    score = share_interval(right, clusters, level)
    if score["value"] is None:
        score["reason"] = f"{reason} with a known label" if n_known else "no label of the pool is known"
    return score
