"""What a fold's network keeps on new slides: the mean AUROC, and its interval from resampled slides."""

import numpy as np
import pandas as pd
import pytest

from pcam_ssl.demo import report
from pcam_ssl.demo.report import kept
from pcam_ssl.evaluation.metrics import auroc


@pytest.fixture
def table():
    """Predictions of two folds on 60 patches of 6 slides, with ties, a slide of one class, and patches of no slide."""
    generator = np.random.default_rng(5)
    slides = np.array([*np.repeat(list("abcdef"), 10), *4 * [None]], dtype=object)
    labels = np.where(slides == "a", 1, generator.integers(0, 2, 64))
    rows = [
        pd.DataFrame({"id": [f"p{n:02}" for n in range(64)], "label": labels, "wsi": slides, "fold": fold, "prob": probs})
        for fold, probs in enumerate(np.clip(labels * 0.3 + generator.random((2, 64)), 0, 1).round(1))
    ]
    return pd.concat(rows).astype({"label": "Int8"})


def plain(table: pd.DataFrame, resamples: int) -> tuple[float, float]:
    """The interval by a loop over resamples, each with its patches in full."""
    parts = [part for _, part in table.groupby("fold")]
    labels, probs = parts[0].label.to_numpy(int), [part.prob.to_numpy() for part in parts]
    patches_of = [np.flatnonzero(parts[0].wsi == slide) for slide in parts[0].wsi.dropna().unique()]
    generator, drawn = np.random.default_rng(0), []
    for _ in range(resamples):
        chosen = np.concatenate([patches_of[slide] for slide in generator.integers(0, len(patches_of), len(patches_of))])
        if len(set(labels[chosen])) == 2:
            drawn.append(np.mean([auroc(labels[chosen], each[chosen]) for each in probs]))
    return tuple(np.quantile(drawn, (0.025, 0.975)))


def test_the_interval_is_that_of_resampled_patches(table, monkeypatch):
    monkeypatch.setattr(report, "RESAMPLES", 40)
    found = kept(table.sample(frac=1, random_state=0))
    assert (found["low"], found["high"]) == pytest.approx(plain(table, 40), abs=1e-12)
    assert found["low"] < found["value"] < found["high"] and found["slides"] == 6


def test_resamples_of_one_class_do_not_count(table, monkeypatch):
    monkeypatch.setattr(report, "RESAMPLES", 40)
    three = table[table.wsi.isin(["a", "b", "c"])].copy()
    three.loc[three.wsi == "b", "label"] = 0
    assert (kept(three)["low"], kept(three)["high"]) == pytest.approx(plain(three, 40), abs=1e-12)


def test_two_slides_of_one_class_each_have_no_interval(table):
    two = table[table.wsi.isin(["a", "b"])].copy()
    two.loc[two.wsi == "b", "label"] = 0
    assert (kept(two)["low"], kept(two)["high"]) == (None, None)


def test_one_slide_has_no_interval(table):
    found = kept(table[table.wsi == "c"])
    assert (found["low"], found["high"], found["slides"]) == (None, None, 1) and 0.5 < found["value"] <= 1
