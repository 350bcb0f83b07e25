"""kNN votes: hand-computed, equal to scikit-learn, finite, and chosen on inner patches."""

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit
from sklearn.neighbors import KNeighborsClassifier

from pcam_ssl.errors import UserError
from pcam_ssl.neighbors.exclusion import leave_out_slides
from pcam_ssl.neighbors.index import build_index
from pcam_ssl.neighbors.knn import (
    binary_nll,
    blend_weight,
    choose_k_and_temperature,
    gallery_votes,
    knn_logits,
    knn_predictions,
    knn_probs,
)
from pcam_ssl.tables import check_predictions


@pytest.fixture
def labelled():
    """Embeddings [80, 4] of two classes on four slides, labels, and their table."""
    rng = np.random.default_rng(0)
    labels = rng.integers(2, size=80)
    embeddings = (rng.normal(size=(80, 4)) + labels[:, None]).astype(np.float32)
    table = pd.DataFrame({"id": [f"p{i}" for i in range(80)], "label": labels, "wsi": [f"s{i % 4}" for i in range(80)]})
    return embeddings, labels, table


def test_a_vote_computed_by_hand():
    # Weights exp(0) = 1 and exp(-log 3) = 1/3 relative to the nearest: tumor has 1 of 4/3, then 1/3 of 4/3.
    similarity = [[0.9, 0.9 - 0.5 * np.log(3)]] * 2
    np.testing.assert_allclose(knn_probs(similarity, [[1, 0], [0, 1]], temperature=0.5), [0.75, 0.25])


def test_a_logit_computed_by_hand():
    similarity = [[0.9, 0.9 - 0.5 * np.log(3)]]
    assert knn_logits(similarity, [[1, 0]], 0.5)[0] == pytest.approx(np.log((1.5 + 0.5) / (0.5 + 0.5)))


@pytest.mark.parametrize(("label", "sign"), [(1, 1), (0, -1)])
def test_a_unanimous_vote_has_a_finite_logit(label, sign):
    logit = knn_logits(np.full((1, 20), 0.8), np.full((1, 20), label))[0]
    assert logit == pytest.approx(sign * np.log(20.5 / 0.5))


def test_a_tiny_temperature_does_not_overflow():
    np.testing.assert_array_equal(knn_probs([[1.0, 0.9, -1.0]], [[1, 0, 0]], temperature=1e-4), [1.0])


def test_absent_neighbours_have_no_vote():
    similarity = [[0.5, 0.5, -np.inf], [-np.inf] * 3]
    labels = [[1, 0, 1], [1, 1, 1]]
    np.testing.assert_allclose(knn_probs(similarity, labels), [0.5, 0.5])
    np.testing.assert_allclose(knn_logits(similarity, labels), [0, 0])


@pytest.mark.parametrize(("k", "temperature"), [(1, 0.07), (5, 0.07), (20, 0.5)])
def test_probs_equal_scikit_learn(labelled, k, temperature):
    embeddings, labels, table = labelled
    gallery = build_index(embeddings[:60], table[:60])
    classifier = KNeighborsClassifier(
        k, metric="cosine", algorithm="brute", weights=lambda distance: np.exp((1 - distance) / temperature)
    ).fit(embeddings[:60], labels[:60])
    ours = knn_probs(*gallery_votes(gallery, embeddings[60:], k), temperature)
    np.testing.assert_allclose(ours, classifier.predict_proba(embeddings[60:])[:, 1], atol=1e-5)


def test_predictions_carry_id_label_slide_and_fold(labelled):
    embeddings, _, table = labelled
    gallery = build_index(embeddings[:60], table[:60])
    frame = check_predictions(knn_predictions(gallery, embeddings[60:], table[60:], fold=3, k=7), "knn")
    assert frame["id"].tolist() == table["id"][60:].tolist()
    assert frame["label"].tolist() == table["label"][60:].tolist()
    assert frame["wsi"].tolist() == table["wsi"][60:].tolist()
    assert set(frame["fold"]) == {3}
    np.testing.assert_allclose(frame["prob"], expit(frame["logit"]))
    np.testing.assert_allclose(frame["logit"], knn_logits(*gallery_votes(gallery, embeddings[60:], 7)))


def test_the_own_slide_does_not_vote_when_left_out(labelled):
    embeddings, _, table = labelled
    table = table.assign(label=np.where(table["wsi"] == "s0", 1, 0))
    gallery = build_index(embeddings, table)
    own = (table["wsi"] == "s0").to_numpy()
    exclude = leave_out_slides(gallery, table["wsi"][own])
    frame = knn_predictions(gallery, embeddings[own], table[own], fold=0, exclude=exclude)
    np.testing.assert_allclose(frame["logit"], -np.log(20.5 / 0.5))


def test_k_larger_than_the_gallery_is_refused(labelled):
    embeddings, _, table = labelled
    with pytest.raises(UserError, match=r"kNN: k 20 is larger than the gallery of 9 patches; set neighbours\.k to 9 or less"):
        gallery_votes(build_index(embeddings[:9], table[:9]), embeddings)


def test_unlabelled_gallery_patches_are_refused(labelled):
    embeddings, _, table = labelled
    table["label"] = table["label"].astype("Int8")
    table.loc[[4, 7], "label"] = pd.NA
    with pytest.raises(UserError, match="kNN: 2 gallery patches have no label, first p4; only labelled patches can vote"):
        gallery_votes(build_index(embeddings, table), embeddings)


def test_nll_by_hand():
    assert binary_nll([1, 0], [np.log(3), np.log(3)]) == pytest.approx((-np.log(0.75) - np.log(0.25)) / 2)


def test_nll_of_a_huge_logit_is_exact():
    assert binary_nll([0], [1000.0]) == 1000.0


def test_k_and_temperature_have_the_least_nll_of_the_grid(labelled):
    embeddings, labels, table = labelled
    gallery = build_index(embeddings[:60], table[:60])
    similarity, neighbor_labels = gallery_votes(gallery, embeddings[60:], 50)
    vote = choose_k_and_temperature(similarity, neighbor_labels, labels[60:])
    nll = {
        (k, t): binary_nll(labels[60:], knn_logits(similarity[:, :k], neighbor_labels[:, :k], t))
        for k in (5, 10, 20, 50)
        for t in (0.02, 0.04, 0.07, 0.15, 0.3, 1.0)
    }
    assert (vote.k, vote.temperature) == min(nll, key=nll.get)
    assert vote.nll == min(nll.values())
    assert (vote.n, vote.reason) == (20, None)


def test_a_correct_nearest_neighbour_leads_to_a_small_k():
    similarity = np.tile(np.linspace(0.9, 0.8, 20), (30, 1))
    labels = np.arange(30) % 2
    neighbor_labels = np.where(np.arange(20) < 5, labels[:, None], 1 - labels[:, None])
    assert choose_k_and_temperature(similarity, neighbor_labels, labels, ks=(5, 20), temperatures=(1.0,)).k == 5


@pytest.mark.parametrize(
    ("labels", "reason"), [([], "no labelled inner patches"), ([1, 1], "the 2 inner patches are all of class 1")]
)
def test_without_two_classes_the_defaults_are_kept(labels, reason):
    shape = len(labels), 8
    vote = choose_k_and_temperature(np.zeros(shape), np.zeros(shape), labels)
    assert (vote.k, vote.temperature, vote.nll) == (8, 0.07, None)
    assert vote.reason == f"{reason}: the default k and temperature"
    blend = blend_weight(labels, labels, labels)
    assert (blend.weight, blend.reason) == (1.0, f"{reason}: the head alone")


def test_the_blend_weight_has_the_least_nll():
    rng = np.random.default_rng(1)
    labels = rng.integers(2, size=400)
    head, knn = (2 * (labels - 0.5) * strength + rng.normal(size=400) * 2 for strength in (2, 1.5))
    blend = blend_weight(head, knn, labels)
    grid = np.linspace(0, 1, 1001)
    best = grid[np.argmin([binary_nll(labels, w * head + (1 - w) * knn) for w in grid])]
    assert blend.weight == pytest.approx(best, abs=2e-3)
    assert 0 < blend.weight < 1
    np.testing.assert_allclose(blend.logits(head, knn), blend.weight * head + (1 - blend.weight) * knn)


@pytest.mark.parametrize(("good", "weight"), [("head", 1.0), ("knn", 0.0)])
def test_a_useless_partner_gets_no_weight(good, weight):
    labels = np.tile([0, 1], 50)
    right = np.where(labels == 1, 2.0, -2.0)
    logits = {"head": -right, "knn": -right, good: right}
    assert blend_weight(logits["head"], logits["knn"], labels).weight == weight


def test_of_equal_votes_the_smallest_k_is_chosen_whatever_the_order_of_their_sums():
    rng = np.random.default_rng(2)
    for _ in range(50):
        # Four neighbours are allowed, so that every k holds the same votes; numpy sums five of them in another order than ten.
        similarity = np.full((30, 50), -np.inf)
        similarity[:, :4] = -np.sort(-rng.uniform(0.2, 1, (30, 4)))
        votes = similarity, rng.integers(2, size=(30, 50))
        assert choose_k_and_temperature(*votes, np.arange(30) % 2, temperatures=(0.07,)).k == 5


def test_the_head_stays_alone_where_nlls_differ_by_rounding_only():
    rng = np.random.default_rng(3)
    labels = rng.integers(2, size=300)
    head = 2 * (labels - 0.5) + rng.normal(size=300)
    assert blend_weight(head, head + 1e-15 * (labels - 0.5), labels).weight == 1.0


def test_a_query_has_the_same_vote_alone_and_in_a_batch():
    rng = np.random.default_rng(4)
    for k in (1, 5, 20, 200):
        similarity, labels = -np.sort(-rng.uniform(-1, 1, (100, k)).astype(np.float32)), rng.integers(2, size=(100, k))
        alone = [knn_logits(similarity[[query]], labels[[query]])[0] for query in range(100)]
        assert np.array_equal(knn_logits(similarity, labels), alone)
