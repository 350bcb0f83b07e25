"""Bounds against Clopper-Pearson, against survey formulas written out, and against simulated slides."""

import numpy as np
import pytest
from scipy.stats import beta, t

from pcam_ssl.evaluation.confidence import (
    cluster_codes,
    faultless_bound,
    faultless_patches,
    lower_bound,
    nested_shares,
    share_interval,
    upper_bound,
)


def last_bound(right, slides=None, level=0.95):
    return lower_bound(nested_shares(right, slides).at([-1]), level)[0]


def effective_by_hand(right, slides, level):
    """Korn and Graubard's number for one share, as their paper writes it."""
    right, slides = np.asarray(right, dtype=float), np.asarray(slides)
    n, names = len(right), np.unique(slides)
    p = right.mean()
    totals = np.array([(right[slides == name] - p).sum() / n for name in names])
    variance = len(names) / (len(names) - 1) * (totals**2).sum()
    effective = min(n, p * (1 - p) / (n - 1) / variance * n)
    return effective * (t.ppf(level, n - 1) / t.ppf(level, len(names) - 1)) ** 2


@pytest.mark.parametrize(("n", "proves"), [(20, False), (148, False), (149, True)])
def test_faultless_patches_prove_098_from_149_on(n, proves):
    assert (last_bound([True] * n) >= 0.98) == proves


def test_without_slides_it_is_clopper_pearson():
    right = np.array([1] * 17 + [0] * 3, dtype=bool)
    score = share_interval(right, None, 0.9)
    assert score == {
        "value": 0.85,
        "low": pytest.approx(beta.ppf(0.05, 17, 4)),
        "high": pytest.approx(beta.ppf(0.95, 18, 3)),
        "right": 17,
        "n": 20,
    }


def test_clustered_bound_by_hand():
    right = np.array([1, 1, 1, 1, 0, 1, 1, 0, 0, 1, 1, 1, 1, 1], dtype=bool)
    slides = np.array(list("aaaabbbbbccccc"))
    n = effective_by_hand(right, slides, 0.95)
    assert n < 14
    x = n * right.mean()
    assert last_bound(right, slides) == pytest.approx(beta.ppf(0.05, x, n - x + 1))


def test_upper_bound_by_hand():
    right = np.array([1, 1, 1, 1, 0, 1, 1, 0, 0, 1, 1, 1, 1, 1], dtype=bool)
    slides = np.array(list("aaaabbbbbccccc"))
    n = effective_by_hand(right, slides, 0.95)
    x = n * right.mean()
    assert upper_bound(nested_shares(right, slides).at([-1]), 0.95)[0] == pytest.approx(beta.ppf(0.95, x + 1, n - x))


def test_nested_bounds_are_those_of_each_share_alone():
    rng = np.random.default_rng(0)
    right, slides = rng.random(60) < 0.8, rng.integers(5, size=60).astype(str)
    nested = lower_bound(nested_shares(right, slides), 0.95)
    alone = [last_bound(right[:end], slides[:end]) for end in range(1, 61)]
    np.testing.assert_allclose(nested, alone, rtol=1e-12)


def test_order_within_a_share_does_not_matter():
    rng = np.random.default_rng(0)
    right, slides, order = rng.random(60) < 0.8, rng.integers(5, size=60).astype(str), rng.permutation(60)
    assert last_bound(right, slides) == last_bound(right[order], slides[order])


def test_few_slides_prove_less_even_where_all_patches_are_right():
    slides = np.arange(149) % 5
    n = 149 * (t.ppf(0.95, 148) / t.ppf(0.95, 4)) ** 2
    assert last_bound([True] * 149, slides.astype(str)) == pytest.approx(0.05 ** (1 / n))


def test_one_slide_counts_as_one_patch():
    assert last_bound([True] * 149, ["s"] * 149) == pytest.approx(0.05)


def test_nothing_right_has_no_lower_bound_and_a_proper_upper_one():
    score = share_interval([False] * 20)
    assert score["low"] == 0.0
    assert score["high"] == pytest.approx(1 - 0.025 ** (1 / 20))


def test_no_rows_have_no_interval():
    assert share_interval([]) == {"value": None, "low": None, "high": None, "right": 0, "n": 0}


def test_a_patch_without_a_slide_is_its_own_cluster():
    assert cluster_codes(["s", None, "s", None], 4).tolist() == [0, 2, 0, 4]
    right = np.array([1] * 17 + [0] * 3, dtype=bool)
    assert share_interval(right, [None] * 20) == share_interval(right)


@pytest.mark.parametrize(
    ("slides", "patches", "precision", "correlation"), [(6, 40, 0.97, 0.05), (20, 40, 0.9, 0.1), (4, 100, 0.95, 0.02)]
)
def test_the_bound_has_its_nominal_coverage_on_simulated_slides(slides, patches, precision, correlation):
    rng = np.random.default_rng(0)
    strength = 1 / correlation - 1
    held = 0
    for _ in range(400):
        sizes = rng.integers(patches // 2, patches * 3 // 2, slides)
        own = rng.beta(precision * strength, (1 - precision) * strength, slides)
        right = rng.random(sizes.sum()) < np.repeat(own, sizes)
        held += last_bound(right, np.repeat(np.arange(slides), sizes).astype(str)) <= precision
    noise = 3 * np.sqrt(0.95 * 0.05 / 400)
    assert held / 400 >= 0.95 - noise


def test_bounds_that_ignore_slides_have_too_low_coverage():
    rng = np.random.default_rng(0)
    held = 0
    for _ in range(400):
        right = rng.random(800) < np.repeat(rng.beta(0.9 * 9, 0.1 * 9, 20), 40)
        held += last_bound(right) <= 0.9
    assert held / 400 < 0.85


@pytest.mark.parametrize(("clusters", "needed"), [(3, 466), (10, 183)])
def test_patches_that_prove_a_precision_where_all_are_right(clusters, needed):
    assert faultless_patches(0.98, clusters, 0.95) == needed
    assert faultless_bound(needed, clusters, 0.95) >= 0.98 > faultless_bound(needed - 1, clusters, 0.95)


def test_the_faultless_bound_is_that_of_the_rows():
    right, slides = np.ones(60, bool), np.arange(60) % 4
    assert faultless_bound(60, 4, 0.9) == pytest.approx(lower_bound(nested_shares(right, slides).at([-1]), 0.9)[0])


def test_one_slide_or_none_proves_nothing():
    assert faultless_patches(0.6, 1, 0.95) is None
    assert faultless_bound(10_000, 1, 0.95) < 0.1
    assert faultless_bound(0, 0, 0.95) == 0
