"""Another share of tumor: estimated without labels, and put into the probs."""

import numpy as np
import pytest
from scipy.special import expit

from pcam_ssl.evaluation.prior_shift import em_prior, shifted, told


def probs_of(n_tumor: int, n_normal: int, prior: float = 0.5) -> np.ndarray:
    """Bayes probs, for a share of `prior`, of patches whose one feature is normal with mean 1 in tumor and -1 else."""
    rng = np.random.default_rng(0)
    feature = np.concatenate([rng.normal(1, 1, n_tumor), rng.normal(-1, 1, n_normal)])
    return expit(2 * feature + np.log(prior / (1 - prior)))


@pytest.mark.parametrize(("n_tumor", "n_normal"), [(400, 3600), (2000, 2000), (3400, 600)])
def test_the_share_is_found_where_the_mean_of_the_probs_is_off(n_tumor, n_normal):
    probs, share = probs_of(n_tumor, n_normal), n_tumor / (n_tumor + n_normal)
    assert em_prior(probs, 0.5) == pytest.approx(share, abs=0.02)
    if share != 0.5:
        assert abs(probs.mean() - share) > 0.05


def test_a_pool_without_tumor_has_a_share_near_0():
    assert em_prior(probs_of(0, 4000), 0.5) < 0.01


def test_it_starts_from_the_share_that_the_probs_hold_for():
    assert em_prior(probs_of(1000, 1000, prior=0.2), 0.2) == pytest.approx(0.5, abs=0.03)


def test_what_probs_tell_is_the_variance_of_labels_that_they_explain():
    labels = np.repeat([1, 0], [300, 700])
    probs = probs_of(300, 700, prior=0.3)
    assert told(labels, probs) == pytest.approx(probs.var() / labels.var(), abs=0.05)
    assert 0.3 < told(labels, probs) < 0.9


@pytest.mark.parametrize(
    ("labels", "probs", "value"),
    [([0, 1], [0.0, 1.0], 1), ([0, 1], [0.5, 0.5], 0), ([0, 1], [0.9, 0.1], -2.24), ([1, 1], [0.9, 0.9], 0), ([], [], 0)],
)
def test_what_probs_tell_by_hand(labels, probs, value):
    assert told(np.array(labels), np.array(probs)) == pytest.approx(value)


def test_the_order_of_the_patches_does_not_matter():
    probs = probs_of(300, 700)
    assert em_prior(probs, 0.5) == em_prior(probs[::-1], 0.5)


def test_shifted_by_hand():
    # Odds of 1 at even classes are odds of 1/3 where tumor has a share of 1/4.
    np.testing.assert_allclose(shifted(np.array([0.5, 0.75]), 0.5, 0.25), [0.25, 0.5])


def test_probs_of_0_and_1_stay_finite():
    assert np.isfinite(em_prior(np.array([0.0, 1.0, 1.0]), 0.5))
    assert np.isfinite(shifted(np.array([0.0, 1.0]), 0.5, 0.0)).all()
