"""Another share of tumor: estimated without labels, and put into the probs."""

import numpy as np
import pytest
from scipy.special import expit

from pcam_ssl.evaluation.prior_shift import em_prior, resolution, shifted


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


def test_resolution_is_the_information_on_the_share():
    """The second derivative of the log-likelihood of a share, a patch, as a part of that of counted labels."""
    probs, prior, step = probs_of(300, 700, prior=0.3), 0.3, 1e-4
    ratio = probs / prior, (1 - probs) / (1 - prior)
    likelihood = [np.log(share * ratio[0] + (1 - share) * ratio[1]).mean() for share in (prior - step, prior, prior + step)]
    curvature = -(likelihood[0] - 2 * likelihood[1] + likelihood[2]) / step**2
    assert resolution(probs, prior) == pytest.approx(curvature * prior * (1 - prior), rel=1e-3)


def test_resolution_is_0_for_probs_that_say_nothing_and_1_for_labels():
    assert resolution(np.full(9, 0.4), 0.4) == pytest.approx(0)
    assert resolution(np.array([0.0, 1.0]), 0.5) == 1


def test_the_order_of_the_patches_does_not_matter():
    probs = probs_of(300, 700)
    assert em_prior(probs, 0.5) == em_prior(probs[::-1], 0.5)


def test_shifted_by_hand():
    # Odds of 1 at even classes are odds of 1/3 where tumor has a share of 1/4.
    np.testing.assert_allclose(shifted(np.array([0.5, 0.75]), 0.5, 0.25), [0.25, 0.5])


def test_probs_of_0_and_1_stay_finite():
    assert np.isfinite(em_prior(np.array([0.0, 1.0, 1.0]), 0.5))
    assert np.isfinite(shifted(np.array([0.0, 1.0]), 0.5, 0.0)).all()
