"""The power law: recovered from made-up points, as wide as the slides and draws vary, and silent where nothing can be told."""

import numpy as np
import pytest

from pcam_ssl.evaluation.confidence import Groups
from pcam_ssl.evaluation.power_law import (
    beyond,
    fit_power_law,
    floor_is_told,
    foretold,
    interval_over,
    log_variances,
    untold,
)

N = np.array([100.0, 300, 1000, 3000, 10_000])
MANY = Groups(n=200, rarer=200, effective=200.0)


def law(n, a: float, b: float, c: float) -> np.ndarray:
    return 1 - a - b * np.asarray(n, float) ** -c


def noisy(a: float, spread: float, draws: int = 5, seed: int = 0) -> np.ndarray:
    """AUROCs [S, B] of a law, each draw with its own noise."""
    return law(N, a, 0.5, 0.3) + np.random.default_rng(seed).normal(0, spread, (draws, len(N)))


def drawn(means, spread: float, resamples: int = 400) -> np.ndarray:
    """Resamples [R, B] in which all budgets move together, as hard slides move them."""
    return means + np.random.default_rng(1).normal(0, spread, (resamples, 1))


def test_a_law_without_noise_is_recovered():
    fitted = fit_power_law(N, law(N, 0, 0.5, 0.3)[None], np.ones(len(N)))
    assert (float(np.exp(fitted.log_b[0])), float(fitted.c[0]), float(fitted.a[0])) == pytest.approx((0.5, 0.3, 0.0))
    assert fitted.auroc(20_000.0)[0] == pytest.approx(law(20_000, 0, 0.5, 0.3))


def test_an_error_that_labels_do_not_remove_is_recovered():
    fitted = fit_power_law(N, law(N, 0.06, 0.5, 0.3)[None], np.ones(len(N)), floor=True)
    assert fitted.a[0] == pytest.approx(0.06, abs=0.005) and fitted.c[0] == pytest.approx(0.3, abs=0.03)


def test_each_row_has_its_own_law():
    rows = np.stack([law(N, 0, 0.5, 0.3), law(N, 0, 0.9, 0.2)])
    assert fit_power_law(N, rows, np.ones(len(N))).c == pytest.approx([0.3, 0.2])


def test_a_budget_with_a_large_variance_counts_less():
    bent = law(N, 0, 0.5, 0.3)
    bent[0] -= 0.1
    even, weighted = (fit_power_law(N, bent[None], np.array([v, 1, 1, 1, 1.0])).c[0] for v in (1.0, 1e4))
    assert weighted == pytest.approx(0.3, abs=1e-3) and even > 0.33


@pytest.mark.parametrize(("a", "spread", "told"), [(0.08, 0.0005, True), (0.0, 0.0005, False), (0.08, 0.05, False)])
def test_it_is_fitted_only_where_the_draws_show_it(a, spread, told):
    aurocs = noisy(a, spread)
    assert floor_is_told(N, aurocs.mean(axis=0), log_variances(aurocs), len(aurocs)) is told


def test_three_budgets_or_one_draw_do_not_show_it():
    aurocs = noisy(0.08, 0.0005)
    assert not floor_is_told(N[:3], aurocs.mean(axis=0)[:3], log_variances(aurocs)[:3], 5)
    assert not floor_is_told(N, aurocs[0], log_variances(aurocs[:1]), 1)


def test_the_variance_of_a_budget_is_drawn_half_way_to_the_mean_of_all():
    aurocs = np.array([[0.8, 0.90], [0.8, 0.92]])
    own = np.array([0.0, (0.02**2 / 2) / 2 / 0.09**2])
    assert log_variances(aurocs) == pytest.approx((own + own.mean()) / 2)
    assert log_variances(aurocs[:1]).tolist() == [1, 1]


def test_twice_the_labels_are_told_with_an_interval_around_the_truth():
    aurocs = noisy(0.0, 0.001)
    found = beyond(N, aurocs, drawn(aurocs.mean(axis=0), 0.01), MANY)
    truth = law(20_000, 0, 0.5, 0.3) - law(10_000, 0, 0.5, 0.3)
    doubled = found["doubled"]
    assert doubled["n"] == 20_000 and doubled["told"] and doubled["why"] is None
    assert doubled["gain"]["low"] < truth < doubled["gain"]["high"]
    assert found["slope"]["value"] == pytest.approx(np.log(2) * 0.3 * 0.5 * 10_000**-0.3, rel=0.1)


def test_the_interval_widens_with_the_spread_of_slides_and_of_draws():
    def width(slides: float, draws: float) -> float:
        aurocs = noisy(0.0, draws)
        gain = beyond(N, aurocs, drawn(law(N, 0, 0.5, 0.3), slides), MANY)["doubled"]["gain"]
        return gain["high"] - gain["low"]

    assert width(0.02, 0.001) > 1.5 * width(0.005, 0.001)
    assert width(0.001, 0.02) > 1.5 * width(0.001, 0.001)


def test_the_interval_adds_both_variances():
    resampled, draws = np.array([0.0, 2.0] * 500), np.array([0.0, 1.0, 2.0])
    both = interval_over(np.ones(1), resampled, draws, MANY)
    slides = resampled.var(ddof=1) * 200 / 199
    sd = np.sqrt(slides + 1 / 3)
    assert (both["high"] - both["low"]) / 2 == pytest.approx(1.97 * sd, rel=0.05)
    alone = interval_over(np.ones(1), resampled, draws[:1], MANY)
    assert (alone["high"] - alone["low"]) / 2 == pytest.approx(1.972 * np.sqrt(slides), rel=1e-3)


@pytest.mark.parametrize(
    ("gain", "why"),
    [
        ({"low": 0.001, "high": 0.004}, None),
        ({"low": -0.001, "high": 0.004}, "its interval includes 0"),
        ({"low": 0.001, "high": 0.2}, "its interval is wider than all that is left to gain (0.050)"),
        ({"low": None, "high": None, "reason": "one slide"}, "one slide"),
    ],
)
def test_a_gain_is_told_only_where_its_interval_allows(gain, why):
    assert untold(gain, 0.05) == why


def test_two_budgets_make_no_law():
    aurocs = noisy(0.0, 0.001)[:, :2]
    found = beyond(N[:2], aurocs, drawn(aurocs.mean(axis=0), 0.01), MANY)
    assert found["doubled"] is None and found["reason"] == "2 budgets: a curve needs 3 or more"


def test_smaller_budgets_foretell_the_largest():
    aurocs = noisy(0.0, 0.0005)
    kept = foretold(N, aurocs, drawn(aurocs.mean(axis=0), 0.01), MANY)
    assert (
        kept["predicted"] == pytest.approx(law(10_000, 0, 0.5, 0.3), abs=0.002) and kept["miss"]["low"] < 0 < kept["miss"]["high"]
    )
    aurocs[:, -1] -= 0.05
    broken = foretold(N, aurocs, drawn(aurocs.mean(axis=0), 0.01), MANY)
    assert broken["predicted"] == kept["predicted"] and broken["miss"]["high"] < 0
    assert foretold(N[:3], aurocs[:, :3], drawn(aurocs.mean(axis=0)[:3], 0.01), MANY) is None
