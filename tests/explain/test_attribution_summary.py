"""From maps to the summary of a patch, by hand."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.special import expit

from pcam_ssl.explain.explanation import NetworkView, summarise, toward, view_agreement


def network(logit: float, cells, no_centre: float = 0.0, no_surround: float = 0.0) -> NetworkView:
    """One patch, the same map in both of its views."""
    maps = np.array([[cells, cells]], dtype=float)
    return NetworkView(np.array([[logit, logit]]), np.array([no_centre]), np.array([no_surround]), maps)


CENTRE = [[0, 0, 0], [0, 2, 0], [0, 0, 0]]
CORNER = [[6, 0, 0], [0, 0, 0], [0, 0, 0]]


def test_the_part_that_supports_the_call_is_kept():
    maps = np.array([[[1.0, -2.0]], [[1.0, -2.0]]])
    assert toward(maps, [1, 0]).tolist() == [[[1, 0]], [[0, 2]]]


def test_a_call_of_normal_is_explained_by_evidence_against_tumor():
    (found,) = summarise([network(-3.0, np.negative(CENTRE))], 96)
    assert (found.call, found.centre_share) == (0, 1.0)


def test_evidence_for_the_other_class_has_no_share():
    (found,) = summarise([network(3.0, np.negative(CENTRE))], 96)
    assert (found.centre_share, found.view_agreement) == (None, None)
    assert found.map.tolist() == [[0] * 3] * 3


def test_probs_are_of_the_mean_logit_of_the_networks():
    (found,) = summarise([network(4.0, CENTRE, 1.0, 3.0), network(2.0, CENTRE, -2.0, 1.0)], 96)
    assert found.prob == pytest.approx(expit(3.0))
    assert (found.prob_without_centre, found.prob_without_surround) == pytest.approx((expit(-0.5), expit(2.0)))


def test_views_that_give_the_same_call_are_counted():
    views = network(0.0, CENTRE)
    turned = replace(views, logits=np.array([[3.0, -1.0, 0.5]]), maps=np.array([[CENTRE] * 3], dtype=float))
    (found,) = summarise([turned], 96)
    assert (found.call, found.views_alike, found.n_views) == (1, 2, 3)
    # The views of several networks are counted by their mean, as the call is.
    (found,) = summarise([turned, replace(turned, logits=np.array([[0.0, 2.0, -2.0]]))], 96)
    assert found.views_alike == 2


def test_every_networks_map_counts_the_same_however_steep_it_is():
    (found,) = summarise([network(1.0, CENTRE), network(1.0, CORNER)], 96)
    assert found.map.sum() == pytest.approx(1) and found.centre_share == pytest.approx(0.5)


def test_a_network_whose_map_is_flat_leaves_the_others_their_say():
    (found,) = summarise([network(1.0, CENTRE), network(1.0, np.zeros((3, 3)))], 96)
    assert found.centre_share == pytest.approx(1)


def test_agreement_is_the_mean_correlation_of_pairs():
    first = np.array([[1.0, 2], [3, 4]])
    assert view_agreement(np.stack([first, 2 * first + 1])) == pytest.approx(1)
    assert view_agreement(np.stack([first, -first])) == pytest.approx(-1)
    assert view_agreement(np.stack([first, first, -first])) == pytest.approx(-1 / 3)


def test_a_flat_map_correlates_with_nothing():
    first = np.array([[1.0, 2], [3, 4]])
    assert view_agreement(np.stack([first, first, np.ones((2, 2))])) == pytest.approx(1)
    assert view_agreement(np.stack([first, np.full((2, 2), 0.1)])) is None


def test_a_batch_gives_each_patch_its_own():
    both = NetworkView(
        np.array([[1.0], [-1.0]]), np.zeros(2), np.zeros(2), np.array([[CENTRE], [np.negative(CORNER)]], dtype=float)
    )
    assert [found.centre_share for found in summarise([both], 96)] == [1.0, 0.0]
