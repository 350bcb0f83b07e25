"""A pool beside the training slides: what lies far, how much tumor it holds, and which of both is worth a warning."""

import numpy as np
import pytest
import torch

from pcam_ssl.pseudo_labels.ceiling import fit_fold
from pcam_ssl.pseudo_labels.pool_likeness import (
    EXPECTED,
    FEWEST,
    TOO_MANY,
    drift_words,
    far_by_source,
    far_patches,
    tumor_share,
    tumor_words,
)

SLIDES = 20
CENTRE = np.random.default_rng(99).normal(size=(1, 64)) * 2


def patches(n: int, seed: int, slides: int = SLIDES) -> tuple[np.ndarray, np.ndarray]:
    """Features [n, 64] and slides [n]: each slide has a look of its own."""
    rng = np.random.default_rng(seed)
    names = rng.integers(slides, size=n)
    looks = rng.normal(size=(slides, 64)) * 0.3
    return CENTRE + looks[names] + rng.normal(size=(n, 64)), names


def far_share(pool, training, names) -> float:
    return float(far_patches(pool, training, names).mean())


def likeness(**changed) -> dict:
    return {"far": 0.05, "tumor": 0.4, "tumor_in_labels": 0.4, **changed}


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_of_a_pool_of_the_same_kind_as_much_lies_far_as_expected(seed):
    training, names = patches(400, 0)
    share = far_share(patches(1000, seed)[0], training, names)
    assert share == pytest.approx(EXPECTED, abs=0.05) and drift_words(likeness(far=share)) is None


def test_of_a_pool_of_another_kind_more_lies_far():
    training, names = patches(400, 0)
    other = patches(1000, 1)[0] + np.random.default_rng(5).normal(size=(1, 64)) * 1.5
    share = far_share(other, training, names)
    assert share > 2 * TOO_MANY and drift_words(likeness(far=share)) is not None


def test_patches_of_the_same_slide_do_not_count_as_near():
    """Twins within a slide would set the limit to 0, and all of the pool would lie far."""
    training, names = patches(200, 0)
    twice = np.concatenate([training, training + 1e-6]), np.concatenate([names, names])
    pool = patches(1000, 1)[0]
    assert far_share(pool, *twice) == pytest.approx(far_share(pool, training, names), abs=0.02)


def test_brightness_alone_is_not_far():
    training, names = patches(400, 0)
    assert far_share(3 * patches(1000, 1)[0], training, names) == far_share(patches(1000, 1)[0], training, names)


def test_blocks_change_nothing(monkeypatch):
    training, names = patches(400, 0)
    pool = patches(1000, 1)[0]
    whole = far_share(pool, training, names)
    monkeypatch.setattr("pcam_ssl.pseudo_labels.pool_likeness.BLOCK", 64)
    assert far_share(pool, training, names) == whole


def test_it_is_not_known_with_few_patches_or_one_slide():
    training, names = patches(FEWEST, 0)
    assert far_patches(training, training, names) is not None
    assert far_patches(training, training[1:], names[1:]) is None
    assert far_patches(training, training, np.zeros(FEWEST)) is None
    assert set(far_by_source(None, np.full(FEWEST, "test", object)).values()) == {None}


@pytest.mark.parametrize(("share", "warned"), [(None, False), (0.05, False), (TOO_MANY, False), (TOO_MANY + 0.01, True)])
def test_drift_is_a_share_of_three_times_the_expected(share, warned):
    assert (drift_words(likeness(far=share)) is not None) == warned


def test_the_warning_says_what_was_seen_what_is_expected_and_what_to_do():
    words = drift_words(likeness(far=0.42))
    assert "42% of its patches lie far" in words and "about 5% are expected" in words and "label some of their slides" in words


def test_hidden_patches_of_the_training_slides_do_not_hide_a_test_split_of_another_kind():
    training, names = patches(400, 0)
    other = patches(300, 1)[0] + np.random.default_rng(5).normal(size=(1, 64)) * 1.5
    far = far_patches(np.concatenate([patches(6000, 2)[0], other]), training, names)
    sources = np.repeat(np.array(["hidden", "test"], object), [6000, 300])
    shares = far_by_source(far, sources)
    assert far.mean() < TOO_MANY < shares["test"] and shares["hidden"] < TOO_MANY and shares["unlabelled"] is None
    words = drift_words(likeness(far=float(far.mean()), far_by_source=shares))
    assert f"{shares['test']:.0%} of its test patches lie far" in words and "hidden" not in words


def test_a_source_of_few_patches_has_no_share():
    assert far_by_source(np.ones(FEWEST - 1, bool), np.full(FEWEST - 1, "test", object))["test"] is None


@pytest.mark.parametrize("share", [0.0, 0.02, 0.3, 0.7])
def test_the_share_of_tumor_is_estimated(share):
    """Labels are 40 % tumor; the pool holds another share of the same two kinds of patches."""
    rng = np.random.default_rng(0)

    def draw(n, tumor):
        labels = (rng.random(n) < tumor).astype(np.int64)
        features = rng.normal(size=(n, 20))
        features[:, 0] += 4 * labels
        return torch.from_numpy(features).float(), labels

    features, labels = draw(400, 0.4)
    pool, _ = draw(3000, share)
    slides = np.arange(400) % 20
    head = fit_fold(features, labels, slides % 5, features, (0,))
    found = tumor_share(head.logits_of(pool), head.learned, labels, slides)
    assert found == pytest.approx(share, abs=0.03)
    assert (tumor_words(likeness(tumor=found)) is not None) == (share < 0.05)


def test_a_head_that_tells_nothing_estimates_no_share():
    rng = np.random.default_rng(0)
    labels, slides = rng.integers(2, size=400), np.arange(400) % 20
    assert tumor_share(rng.normal(size=50), rng.normal(size=400), labels, slides) is None
    assert tumor_words(likeness(tumor=None)) is None


def test_a_class_that_is_rare_in_the_labels_too_is_no_surprise():
    assert tumor_words(likeness(tumor=0.03, tumor_in_labels=0.05)) is None


@pytest.mark.parametrize(("changed", "name"), [({"tumor": 0.01}, "tumor"), ({"tumor": 0.99}, "normal tissue")])
def test_the_class_that_is_absent_is_named(changed, name):
    words = tumor_words(likeness(**changed))
    assert f"almost no {name}: an estimated 1.0% of its patches" in words and f"slides with {name}" in words
