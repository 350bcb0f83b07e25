"""Fixed views: the finite set of views of a frozen backbone."""

import numpy as np
import pytest

from pcam_ssl.data.batches import EvalStream
from pcam_ssl.data.dataset import PIXELS, open_dataset
from pcam_ssl.data.fixed_views import D4, PLAIN, FixedViews
from pcam_ssl.data.pixels import Pixels
from pcam_ssl.data.views import Views, dihedral, id_key


@pytest.fixture(scope="module")
def patch():
    return np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)


def test_names(patch):
    assert FixedViews("none").names == PLAIN
    assert FixedViews("d4").names == D4
    assert len(FixedViews("standard", count=3).names) == 3
    assert FixedViews("standard", count=3).names[:2] == FixedViews("standard", count=2).names


@pytest.mark.parametrize("other", [FixedViews("strong", count=2), FixedViews("standard", 0.5, count=2)])
def test_other_policies_and_strengths_have_other_names(other):
    assert not set(other.names) & set(FixedViews("standard", count=2).names)


def test_a_key_draws_each_of_them(patch):
    views = FixedViews("d4")
    drawn = {views.number((0, 2, step, 0)) for step in range(100)}
    assert drawn == set(range(8))
    assert np.array_equal(views(patch, (0, 2, 7, 0), 0), dihedral(patch, views.number((0, 2, 7, 0))))


def test_random_views_are_the_test_views_of_seed_0(slides):
    dataset = open_dataset(slides)
    ids = np.array([id_key(each) for each in dataset.patches.id], np.uint64)
    stream = EvalStream(Pixels(slides / PIXELS), np.arange(4), ids[:4], 4, Views("standard"), 2, 0)
    views = FixedViews("standard", count=2, ids=ids)
    ours = [[views.render(dataset.pixels[row], row, number) for number in range(2)] for row in range(4)]
    assert np.array_equal(np.array(ours), stream[0]["random"].numpy())
