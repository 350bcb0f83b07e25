import numpy as np
import pandas as pd
import pytest

from pcam_ssl.errors import UserError
from pcam_ssl.search.embed import knn_scores
from pcam_ssl.tables import PATCH_COLUMNS


def patches(labels, slides, splits) -> pd.DataFrame:
    n = len(labels)
    known = {"id": [f"p{i}" for i in range(n)], "row": range(n), "split": splits, "label": labels, "wsi": slides, "view_hash": None}
    return pd.DataFrame(known, columns=list(PATCH_COLUMNS)).astype({"label": "Int8", "wsi": "str", "view_hash": "str"})


def by_class_or_by_slide(n_slides: int = 6, per_slide: int = 10):
    """Embeddings of one direction a class, and of one direction a slide whose patches all have one label."""
    slide = np.repeat(np.arange(n_slides), per_slide)
    labels = slide % 2
    noise = 0.01 * np.random.default_rng(0).normal(size=(len(slide), n_slides))
    return labels, [f"s{i}" for i in slide], np.eye(n_slides)[labels] + noise, np.eye(n_slides)[slide] + noise


def test_classes_that_lie_together_across_slides_score_one():
    labels, slides, by_class, _ = by_class_or_by_slide()
    scores = knn_scores(by_class, patches(labels, slides, "train"))
    assert scores["train"]["scores"]["auroc"]["value"] == 1 and scores["train"]["n"] == 60


def test_slides_that_lie_together_score_nothing():
    labels, slides, _, by_slide = by_class_or_by_slide()
    score = knn_scores(by_slide, patches(labels, slides, "train"))["train"]["scores"]["auroc"]["value"]
    assert score < 0.7  # with a query's own slide in the gallery it would be 1


def test_other_splits_ask_the_train_split():
    labels, slides, by_class, _ = by_class_or_by_slide()
    splits = ["train"] * 40 + ["test"] * 20
    turned = np.where(np.arange(60) < 40, labels, 1 - labels)
    scores = knn_scores(by_class, patches(turned, slides, splits))
    assert {name: report["scores"]["auroc"]["value"] for name, report in scores.items()} == {"train": 1, "test": 0}


def test_labels_are_needed():
    table = patches([None] * 4, "s", "test")
    with pytest.raises(UserError, match="--knn: no patch of the source has a label"):
        knn_scores(np.eye(4), table)
