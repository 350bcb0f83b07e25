"""Colour baseline: histograms by hand, no labels across folds, the same bits for the same seed."""

import numpy as np
import pytest

from pcam_ssl.evaluation import colour_baseline as floor
from pcam_ssl.evaluation.colour_baseline import BINS, colour_baseline_oof, colour_baseline_predictions, colour_histograms


@pytest.fixture(scope="module")
def purple_and_pink():
    """300 patches of 8 px; tumor patches are darker and bluer on average."""
    rng = np.random.default_rng(0)
    labels = rng.integers(2, size=300)
    colour = np.array([[220, 160, 190], [180, 130, 190]])[labels] + rng.normal(0, 15, size=(300, 3))
    pixels = colour[:, None, None] + rng.normal(0, 20, size=(300, 8, 8, 3))
    return np.clip(pixels, 0, 255).astype(np.uint8), labels


def halves(n):
    first = np.arange(n) < n // 2
    return [~first, first], [first, ~first]


def test_histogram_of_a_red_patch_by_hand():
    red = np.zeros((1, 4, 4, 3), dtype=np.uint8)
    red[..., 0] = 255
    found = colour_histograms(red, [0])[0].reshape(6, BINS)
    # Red and value full, green and blue nothing, hue 0, saturation full; every patch pixel is in one bin of each channel.
    assert found.argmax(axis=1).tolist() == [31, 0, 0, 0, 31, 31]
    assert found.max(axis=1).tolist() == [1] * 6


def test_histogram_counts_shares():
    pixels = np.zeros((1, 2, 2, 3), dtype=np.uint8)
    pixels[0, 0, 0, 1] = 8  # one pixel of four in the second bin of green
    assert colour_histograms(pixels, [0])[0].reshape(6, BINS)[1, :2].tolist() == [0.75, 0.25]


def test_histograms_follow_rows(purple_and_pink):
    pixels, _ = purple_and_pink
    assert (colour_histograms(pixels, [7, 2]) == colour_histograms(pixels, np.arange(10))[[7, 2]]).all()


def test_histograms_do_not_see_where_a_pixel_is(purple_and_pink):
    pixels, _ = purple_and_pink
    assert (colour_histograms(pixels[:, ::-1, ::-1], [3]) == colour_histograms(pixels, [3])).all()


def test_reads_memory_mapped_pixels(purple_and_pink, tmp_path):
    np.save(tmp_path / "pixels.npy", purple_and_pink[0])
    mapped = np.load(tmp_path / "pixels.npy", mmap_mode="r")
    assert (colour_histograms(mapped, [0, 5]) == colour_histograms(purple_and_pink[0], [0, 5])).all()


def test_the_colour_baseline_learns_colour(purple_and_pink):
    pixels, labels = purple_and_pink
    probs = colour_baseline_oof(pixels, np.arange(300), labels, *halves(300), seed=0)
    assert np.mean((probs >= 0.5) == labels) > 0.85


def test_the_labels_of_a_fold_do_not_change_its_probs(purple_and_pink):
    pixels, labels = purple_and_pink
    train, score = halves(300)
    scrambled = np.where(score[0], 1 - labels, labels)
    before, after = (
        colour_baseline_oof(pixels, np.arange(300), given, train[:1], score[:1], seed=0) for given in (labels, scrambled)
    )
    np.testing.assert_array_equal(before, after)


def test_rows_no_fold_scores_are_nan(purple_and_pink):
    pixels, labels = purple_and_pink
    train, score = halves(300)
    probs = colour_baseline_oof(pixels, np.arange(300), labels, train[:1], score[:1], seed=0)
    assert (np.isnan(probs) == ~score[0]).all()


@pytest.mark.parametrize("label", [0, 1])
def test_one_class_in_training_gives_prob_0_or_1(purple_and_pink, label):
    features = colour_histograms(purple_and_pink[0], np.arange(20))
    assert colour_baseline_predictions(features[:10], [label] * 10, features[10:], seed=0).tolist() == [label] * 10


def test_the_same_seed_gives_the_same_bits(purple_and_pink):
    pixels, labels = purple_and_pink
    features = colour_histograms(pixels, np.arange(300))
    first, second = (colour_baseline_predictions(features[:150], labels[:150], features[150:], seed=0) for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_trains_on_a_bounded_sample(purple_and_pink, monkeypatch):
    pixels, labels = purple_and_pink
    features = colour_histograms(pixels, np.arange(300))
    monkeypatch.setattr(floor, "MOST_TRAINING_ROWS", 100)
    kept = np.sort(np.random.default_rng(3).choice(200, 100, replace=False))
    sampled = colour_baseline_predictions(features[:200], labels[:200], features[200:], seed=3)
    np.testing.assert_array_equal(sampled, colour_baseline_predictions(features[kept], labels[kept], features[200:], seed=3))
