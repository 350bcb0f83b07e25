"""Intervals from resamples by hand: the scale, Student's t, effective slides, and shares at their ends."""

import numpy as np
import pytest
from scipy.special import logit
from scipy.stats import binomtest
from scipy.stats import t as student

from pcam_ssl.evaluation.confidence import PLAIN, POSITIVE, SHARE, Groups, count_groups, student_interval

DRAWN = np.random.default_rng(0).normal(0.8, 0.03, 4000)


def test_groups_of_equal_size_count_in_full():
    assert count_groups(np.repeat(np.arange(6), 5)) == Groups(6, 6, 6.0)


def test_the_rarer_class_is_counted_by_its_own_patches():
    # Tumor: 3 patches on slide 0 and 1 on slide 1, as good as (3 + 1)^2 / (9 + 1) equal slides.
    codes = np.array([0, 0, 0, 1, 1, 2, 3, 4])
    labels = np.array([1, 1, 1, 1, 0, 0, 0, 0])
    assert count_groups(codes, labels) == Groups(5, 2, 1.6)


def test_an_absent_class_has_no_groups():
    counted = count_groups([0, 1], [1, 1])
    assert (counted.rarer, counted.enough) == (0, False)
    with pytest.raises(ValueError, match="0 groups"):
        student_interval(0.8, DRAWN, counted)


@pytest.mark.parametrize(("kind", "there"), [(PLAIN, lambda x: x), (POSITIVE, np.log), (SHARE, logit)])
def test_the_interval_is_symmetric_on_its_scale(kind, there):
    groups = Groups(10, 8, 6.0)
    low, high = student_interval(0.8, DRAWN, groups, kind, 0.9)
    reach = student.ppf(0.95, 5) * there(DRAWN).std(ddof=1) * np.sqrt(10 / 9)
    assert there(np.array([low, high])) == pytest.approx(there(0.8) + np.array([-reach, reach]))


@pytest.mark.parametrize("n", [3, 10, 34])
def test_a_share_of_one_has_an_interval_of_some_width(n):
    low, high = student_interval(1.0, np.ones(50), Groups(n, n, float(n)))
    exact = binomtest(n, n).proportion_ci(0.95)
    assert (low, high) == pytest.approx((exact.low, 1.0))
    assert student_interval(0.0, np.zeros(50), Groups(n, n, float(n))) == pytest.approx((0.0, 1 - exact.low))


def test_resamples_of_0_or_1_stay_finite():
    low, high = student_interval(0.9, np.array([1.0, 0.8, 0.9, 1.0]), Groups(9, 9, 9.0))
    assert 0 < low < 0.9 < high < 1


def test_undefined_resamples_are_left_out():
    with_nan = np.append(DRAWN, np.nan)
    assert student_interval(0.8, with_nan, Groups(9, 9, 9.0)) == student_interval(0.8, DRAWN, Groups(9, 9, 9.0))


def test_one_slide_that_holds_nearly_all_leaves_a_finite_difference():
    low, high = student_interval(0.01, 0.01 + 0.01 * DRAWN, Groups(9, 2, 1.01), PLAIN)
    assert np.isfinite([low, high]).all()


def test_a_column_has_the_same_interval_alone_and_beside_others():
    values, drawn = np.array([0.8, 1.0, 0.4]), np.stack([DRAWN, np.ones_like(DRAWN), DRAWN / 2], axis=1)
    together = np.stack(student_interval(values, drawn, Groups(9, 9, 9.0)))
    for column in range(3):
        alone = student_interval(values[column], drawn[:, column], Groups(9, 9, 9.0))
        assert together[:, column] == pytest.approx(np.array(alone))
