"""Counts of patches under resampled slides."""

import numpy as np

from pcam_ssl.evaluation.resampled_sums import resampled_totals


def test_a_slide_is_drawn_whole_or_not_at_all():
    totals = resampled_totals([0, 0, 0, 1], 2, ["a", "a", "a", "b"], resamples=200)
    assert {tuple(row) for row in totals} == {(6, 0), (3, 1), (0, 2)}


def test_every_slide_is_drawn_as_often_as_another():
    slides = np.repeat(np.arange(5), 10)
    totals = resampled_totals(slides, 5, slides, resamples=4000)
    assert (totals.sum(axis=1) == 50).all()
    np.testing.assert_allclose(totals.mean(axis=0), 10, atol=0.6)


def test_without_slides_patches_are_drawn_one_by_one():
    cells = np.repeat([0, 1], [700, 300])
    apart = resampled_totals(cells, 2, np.arange(1000), resamples=4000)
    at_once = resampled_totals(cells, 2, None, resamples=4000)
    assert (at_once.sum(axis=1) == 1000).all()
    np.testing.assert_allclose(at_once.mean(axis=0), apart.mean(axis=0), rtol=0.01)
    np.testing.assert_allclose(at_once.std(axis=0), apart.std(axis=0), rtol=0.05)


def test_patches_without_a_slide_count_as_one():
    totals = resampled_totals([0, 0, 1], 2, [None, None, "a"], resamples=100)
    assert {tuple(row) for row in totals} == {(4, 0), (2, 1), (0, 2)}


def test_chunks_do_not_change_the_counts(monkeypatch):
    slides = np.arange(60) % 6
    whole = resampled_totals(slides, 6, slides, resamples=50, seed=1)
    monkeypatch.setattr("pcam_ssl.evaluation.bootstrap.WEIGHTS", 18)
    np.testing.assert_array_equal(resampled_totals(slides, 6, slides, resamples=50, seed=1), whole)


def test_one_slide_or_no_rows_give_no_resamples():
    assert resampled_totals([0, 1], 2, ["a", "a"]).shape == (0, 2)
    assert resampled_totals([1], 2, None).shape == (0, 2)
    assert resampled_totals([], 2, None).shape == (0, 2)
