"""Many logistic regressions at once, against scikit-learn's one at a time."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from pcam_ssl.training import logistic
from pcam_ssl.training.logistic import LogisticRegressions, Problems, Solution

CS = (1e-4, 1e-2, 1.0)


@pytest.fixture(scope="module")
def patches():
    """Features `[200, 40]` that are standardised, labels, and three sets of weights: all, and two halves."""
    rng = np.random.default_rng(0)
    features = rng.normal(size=(200, 6)) @ rng.normal(size=(6, 40)) + rng.normal(size=(200, 40))
    features = (features - features.mean(0)) / features.std(0)
    labels = (features[:, 0] + rng.normal(size=200) > 0).astype(float)
    half = np.arange(200) % 2
    return features, labels, np.stack([np.ones(200), half, 1 - half])


def problems(labels, weights, pairs):
    targets = np.broadcast_to(labels, weights.shape)
    return Problems(torch.from_numpy(weights), torch.from_numpy(targets.copy()), [j for j, _ in pairs], [c for _, c in pairs])


def solved(features, labels, weights, pairs, **options):
    found = LogisticRegressions(torch.from_numpy(features)).fit(problems(labels, weights, pairs), **options)
    return found.weight.numpy(), found.bias.numpy()


@pytest.mark.parametrize("c", CS)
@pytest.mark.parametrize("row", [0, 1, 2])
def test_each_problem_has_the_optimum_of_its_own_rows(patches, c, row):
    features, labels, weights = patches
    pairs = [(j, each) for j in range(3) for each in CS]
    weight, bias = solved(features, labels, weights, pairs)
    kept = weights[row] > 0
    theirs = LogisticRegression(C=c, tol=1e-10, max_iter=10_000).fit(features[kept], labels[kept])
    number = pairs.index((row, c))
    ours = features @ weight[number] + bias[number]
    np.testing.assert_allclose(ours, theirs.decision_function(features), atol=2e-3)


def test_a_problem_depends_on_the_others_by_rounding_alone(patches):
    features, labels, weights = patches
    other = weights.copy()
    other[1, :50] = 0
    mine, _ = solved(features, labels, weights, [(0, 0.01), (1, 0.01)])
    again, _ = solved(features, labels, other, [(0, 0.01), (1, 0.01)])
    np.testing.assert_allclose(mine[0], again[0], atol=1e-6)
    assert np.abs(mine[1] - again[1]).max() > 1e-3


def test_a_soft_target_is_both_labels_by_their_share(patches):
    features, labels, _ = patches
    soft = 0.8 * labels + 0.1
    ours, _ = solved(features, soft, np.ones((1, 200)), [(0, 0.01)])
    twice = np.concatenate([features, features])
    both = np.concatenate([np.ones(200), np.zeros(200)])
    share = np.concatenate([soft, 1 - soft])[None]
    theirs, _ = solved(twice, both, share, [(0, 0.01)])
    np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_an_offset_moves_the_bias_alone(patches):
    features, labels, weights = patches
    plain, bias = solved(features, labels, weights[:1], [(0, 0.01)], tolerance=1e-12)
    shifted, moved = solved(features, labels, weights[:1], [(0, 0.01)], offset=1.5, tolerance=1e-12)
    np.testing.assert_allclose(plain, shifted, atol=1e-4)
    assert moved[0] == pytest.approx(bias[0] - 1.5, abs=1e-3)


def test_float32_of_many_numbers_gives_the_same_logits(patches, monkeypatch):
    features, labels, weights = patches
    exact, _ = solved(features, labels, weights, [(0, 0.01)])
    monkeypatch.setattr(logistic, "EXACT", 0)
    single, _ = solved(features, labels, weights, [(0, 0.01)])
    assert single.dtype == np.float32
    np.testing.assert_allclose(features @ exact.T, features @ single.T, atol=5e-3)


def test_steps_are_limited(patches):
    features, labels, weights = patches
    regressions = LogisticRegressions(torch.from_numpy(features))
    assert regressions.fit(problems(labels, weights, [(0, 1.0)]), max_steps=3).steps == 3


def test_a_near_start_takes_fewer_steps_to_the_same_optimum(patches):
    features, labels, weights = patches
    regressions, asked = LogisticRegressions(torch.from_numpy(features)), problems(labels, weights, [(0, 0.01)])
    cold = regressions.fit(asked)
    near = regressions.fit(asked, start=Solution(0.99 * cold.weight, 0.99 * cold.bias, 0))
    assert near.steps < cold.steps
    np.testing.assert_allclose(features @ near.weight.numpy().T, features @ cold.weight.numpy().T, atol=2e-3)
