import numpy as np
import pytest
import torch

from pcam_ssl.data.views import Views, dihedral, id_key
from pcam_ssl.models.inference import dihedral as dihedral_torch

POLICIES = ["none", "d4", "standard", "strong"]


@pytest.fixture(scope="module")
def patch():
    return np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)


def same(a, b) -> bool:
    return np.array_equal(np.asarray(a), np.asarray(b))


def test_the_elements_by_hand():
    square = np.repeat(np.array([[1, 2], [3, 4]], np.uint8)[..., None], 3, axis=2)
    shown = [dihedral(square, element)[..., 0].tolist() for element in range(8)]
    assert shown == [
        [[1, 2], [3, 4]],
        [[2, 4], [1, 3]],
        [[4, 3], [2, 1]],
        [[3, 1], [4, 2]],
        [[2, 1], [4, 3]],
        [[4, 2], [3, 1]],
        [[3, 4], [1, 2]],
        [[1, 3], [2, 4]],
    ]


def test_the_eight_elements_differ(patch):
    assert len({dihedral(patch, element).tobytes() for element in range(8)}) == 8


def test_the_product_of_two_elements_is_an_element(patch):
    elements = {dihedral(patch, element).tobytes() for element in range(8)}
    for first in range(8):
        composed = {dihedral(dihedral(patch, first), second).tobytes() for second in range(8)}
        assert composed == elements


@pytest.mark.parametrize("element", range(8))
def test_every_element_can_be_undone(patch, element):
    undone = [back for back in range(8) if same(dihedral(dihedral(patch, element), back), patch)]
    assert len(undone) == 1


@pytest.mark.parametrize("element", range(8))
def test_numpy_and_torch_agree(patch, element):
    batch = torch.from_numpy(np.stack([patch, patch[::-1]]))
    shown = dihedral_torch(batch, element).numpy()
    assert same(shown, np.stack([dihedral(patch, element), dihedral(patch[::-1], element)]))


@pytest.mark.parametrize("policy", POLICIES)
def test_a_view_is_a_uint8_patch_of_the_same_size(patch, policy):
    view = Views(policy)(patch, (0, 1, 2))
    assert (view.dtype, view.shape) == (np.uint8, patch.shape)


@pytest.mark.parametrize("policy", POLICIES)
def test_a_view_is_a_pure_function_of_patch_and_key(patch, policy):
    views, others = Views(policy), Views(policy)
    keys = [(7, 2, step, 3) for step in range(12)]
    first = [views(patch, key) for key in keys]
    again = [others(patch, key) for key in reversed(keys)][::-1]  # another order, another object
    assert all(same(a, b) for a, b in zip(first, again, strict=True))


@pytest.mark.parametrize("policy", POLICIES)
def test_global_random_states_do_not_change_a_view(patch, policy):
    import random

    seen = []
    for seed in (0, 1):
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)
        seen.append(Views(policy)(patch, (5,)).tobytes())
    assert seen[0] == seen[1]


@pytest.mark.parametrize("policy", POLICIES)
def test_the_patch_is_not_changed(patch, policy):
    before = patch.copy()
    for key in range(8):
        Views(policy, 2.0)(patch, (key,))
    assert same(patch, before)


@pytest.mark.parametrize("policy", ["d4", "standard", "strong"])
def test_keys_draw_different_views(patch, policy):
    shown = {Views(policy)(patch, (key,)).tobytes() for key in range(64)}
    assert len(shown) == 8 if policy == "d4" else len(shown) > 60


def test_none_returns_the_patch_itself(patch):
    assert same(Views("none")(patch, (1,)), patch)


def test_d4_draws_only_elements_of_d4(patch):
    elements = {dihedral(patch, element).tobytes() for element in range(8)}
    assert {Views("d4")(patch, (key,)).tobytes() for key in range(64)} == elements


@pytest.mark.parametrize("policy", ["standard", "strong"])
def test_strength_zero_leaves_d4_only(patch, policy):
    assert all(same(Views(policy, 0.0)(patch, (key,)), Views("d4")(patch, (key,))) for key in range(16))


@pytest.mark.parametrize("policy", ["standard", "strong"])
def test_strength_scales_the_colour_jitter(patch, policy):
    def moved(strength: float) -> float:
        pairs = [(Views(policy, strength)(patch, (key,)), Views("d4")(patch, (key,))) for key in range(32)]
        return np.mean([np.abs(a.astype(int) - b.astype(int)).mean() for a, b in pairs])

    assert 0 < moved(0.3) < moved(1.0)


def test_ids_have_stable_keys():
    # Changing this changes every random test-time view of every run.
    assert id_key("f38a6374c348f90b587e046aac6079959adf3835") == 5039557862344366721
    assert id_key("a") != id_key("b")
