"""Neighbour purity and silhouette, on embeddings at known angles."""

import numpy as np
import pytest

from pcam_ssl.neighbors.embedding_map import neighborhood_scores


def at(*degrees) -> np.ndarray:
    angles = np.radians(degrees)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1)


def test_neighbours_of_the_same_class_on_other_slides():
    found = neighborhood_scores(at(0, 1, 90, 91), [0, 0, 1, 1], ["a", "b", "a", "b"], k=1)
    assert found["same_label"] == {"value": 1.0, "by_chance": 0.5}
    assert found["same_slide"] == {"value": 0.0, "by_chance": pytest.approx(1 / 3)}


def test_embeddings_grouped_by_slide_have_no_label_purity():
    found = neighborhood_scores(at(0, 1, 90, 91), [0, 1, 0, 1], ["a", "a", "b", "b"], k=1)
    assert found["same_slide"]["value"] == 1.0
    assert found["silhouette_slide"] > 0.99
    assert found["silhouette_label"] < 0.01


def test_fewer_allowed_neighbours_than_k():
    found = neighborhood_scores(at(0, 1, 90), [0, 0, 1], ["a", "b", "c"], k=10)
    assert found["same_label"]["value"] == pytest.approx((1 / 2 + 1 / 2 + 0) / 3)
    assert found["same_label"]["by_chance"] == found["same_label"]["value"]


def test_with_unknown_slides_all_patches_are_searched_and_slide_scores_are_none():
    found = neighborhood_scores(at(0, 1, 90, 91), [0, 0, 1, 1], k=1)
    assert found["same_label"]["value"] == 1.0
    assert (found["same_slide"]["value"], found["silhouette_slide"]) == (None, None)


def test_one_slide_has_no_neighbours_on_others():
    found = neighborhood_scores(at(0, 1, 90), [0, 0, 1], ["a", "a", "a"], k=1)
    assert found["same_label"] == {"value": None, "by_chance": None}
    assert found["silhouette_slide"] is None


def test_one_class_has_no_silhouette():
    assert neighborhood_scores(at(0, 1, 90), [1, 1, 1], ["a", "b", "c"])["silhouette_label"] is None


def test_silhouette_by_hand():
    # Cosine distances of 0, 60 and 180 degrees: a = 0.5 within the pair; b = 2 and 1.5 to the third, which is alone and counts 0.
    found = neighborhood_scores(at(0, 60, 180), [0, 0, 1])
    assert found["silhouette_label"] == pytest.approx(((2 - 0.5) / 2 + (1.5 - 0.5) / 1.5 + 0) / 3)
