import numpy as np
import pytest
from scipy.stats import spearmanr

from pcam_ssl.evaluation.metrics import pearson, spearman
from pcam_ssl.tables import calibrated_logits


@pytest.fixture
def logits():
    rng = np.random.default_rng(1)
    shared = rng.normal(size=200)
    return np.stack([shared + k * rng.normal(size=200) for k in (0.1, 1, 3)], axis=1).round(1)


def test_pearson_is_numpys(logits):
    assert pearson(logits) == pytest.approx(np.corrcoef(logits.T))


def test_spearman_is_scipys_with_ties(logits):
    assert spearman(logits) == pytest.approx(spearmanr(logits).statistic)


@pytest.mark.parametrize("measure", [pearson, spearman])
def test_a_constant_column_has_no_correlation_and_changes_no_other(logits, measure):
    found = measure(np.column_stack([logits[:, :2], np.ones(200)]))
    assert np.isnan(found[2]).all() and np.isnan(found[:, 2]).all()
    assert found[:2, :2] == pytest.approx(measure(logits[:, :2]))


def test_probs_of_zero_and_one_have_finite_logits():
    assert np.isfinite(calibrated_logits([0.0, 0.5, 1.0])).all()
    assert calibrated_logits([0.25])[0] == pytest.approx(-np.log(3))


def test_the_correlation_of_two_columns_does_not_depend_on_others():
    logits = np.random.default_rng(2).normal(size=(301, 9))
    whole = pearson(logits)
    alone = [[pearson(logits[:, [one, other]])[0, 1] for other in range(9)] for one in range(9)]
    assert np.array_equal(whole, alone)


def test_equal_columns_have_correlation_one():
    logits = np.random.default_rng(3).normal(size=(301, 9))
    assert (pearson(logits[:, [4] * 7]) == 1).all()
