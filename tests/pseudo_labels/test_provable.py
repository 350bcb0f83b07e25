"""The precision that inner slides can prove is printed before anything is trained."""

import numpy as np
import pytest

from pcam_ssl.data.dataset import open_dataset
from pcam_ssl.data.folds import labelled_rows, read_folds
from pcam_ssl.data.splits import make_folds
from pcam_ssl.pseudo_labels.thresholds import evidence, provable_text
from pcam_ssl.recipe.schema import Pseudo


@pytest.fixture
def dataset(slides):
    return open_dataset(slides)


@pytest.fixture
def folds(dataset):
    return make_folds(dataset.patches, n_folds=2, inner_share=0.3)


def test_counts_are_those_of_the_inner_slides(dataset, folds):
    labels = labelled_rows(dataset.patches).label.to_numpy(np.int64)
    entry = next(each for each in evidence(folds, labels, 0.95) if each.label == 1)
    rows = folds.inner_mask(0) & (labels == 1)
    assert (entry.n, entry.clusters) == (rows.sum(), folds.frame.wsi[rows].nunique())


def test_a_precision_out_of_reach_is_one_line_with_the_next_step(dataset, folds):
    text = provable_text(Pseudo(precision=0.98), dataset, folds)
    assert "\n" not in text
    assert "pseudo.precision 0.98" in text and "tumor in any fold" in text and "pseudo.top_share" in text


def test_folds_that_cross_fit_are_not_told_to_raise_a_share_that_they_ignore(dataset, folds):
    crossed = make_folds(dataset.patches, n_folds=2, inner_folds=2)
    ways = [provable_text(Pseudo(precision=0.98), dataset, each).partition("No such patch")[2] for each in (folds, crossed)]
    assert "raise cv.inner_share" in ways[0] and "label more patches or slides" not in ways[0]
    assert "cv.inner_share" not in ways[1] and "label more patches or slides, or choose by rank" in ways[1]


def test_a_precision_within_reach(dataset, folds):
    text = provable_text(Pseudo(precision=0.6, precision_level=0.51), dataset, folds)
    assert "can prove it" in text


def test_without_a_precision_nothing_is_printed(dataset, folds):
    assert provable_text(Pseudo(precision=None, k_best=3), dataset, folds) is None


def test_it_is_printed_before_round_0_is_trained(command, slides, tiny, tmp_path, monkeypatch):
    def train(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("pcam_ssl.pseudo_labels.setup.baseline", train)
    settings = [word for setting in tiny() for word in ("--set", setting)]
    done = command("pseudo-label", tmp_path / "run", "--data", slides, *settings)
    assert "pseudo.precision 0.98 (confidence level 0.95) cannot be proven" in done.err


def test_it_is_printed_before_the_precision_check(command, finished, tmp_path, monkeypatch):
    def check(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("pcam_ssl.pseudo_labels.rounds.precision_check", check)
    done = command("pseudo-label", finished.path, "--out", tmp_path / "rounds", "--rounds", 1)
    assert "pseudo.precision 0.98 (confidence level 0.95) cannot be proven" in done.err
    assert read_folds(finished.paths.folds, open_dataset(finished.info()["dataset"]).patches).n_folds == 2
