"""Views as tensor operations: each step by hand, and the same views as albumentations computes."""

import cv2
import numpy as np
import pytest
import torch

from pcam_ssl.data.tensor_views import ELEMENT, HOLES, MOST_TAPS, blur, erase, pack, render, stain, turn, warp
from pcam_ssl.data.views import StainJitter, ViewParameters, Views, dihedral

POLICIES = ["none", "d4", "standard", "strong"]
KEYS = [(7, 2, 5, place) for place in range(96)]


@pytest.fixture(scope="module")
def patches():
    """uint8 `[96, 48, 48, 3]`: noise, smoothed and not, with black and white px."""
    noise = np.random.default_rng(0).integers(0, 256, (96, 48, 48, 3), dtype=np.uint8)
    for patch in noise[::2]:
        patch[:] = cv2.normalize(cv2.GaussianBlur(patch, (0, 0), 2), None, 0, 255, cv2.NORM_MINMAX)
    return noise


def planar(patches: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(patches).permute(0, 3, 1, 2)


def rendered(patches: np.ndarray, views: list[ViewParameters]) -> np.ndarray:
    return render(planar(patches), pack(torch.empty(0), views)).numpy()


def drawn(policy: str, keys=KEYS, strength: float = 1.0, size_px: int = 48) -> list[ViewParameters]:
    return [Views(policy, strength).parameters(key, size_px) for key in keys]


@pytest.mark.parametrize("strength", [0.0, 1.0, 3.0])
@pytest.mark.parametrize("policy", POLICIES)
def test_both_engines_compute_the_same_view_of_a_key(patches, policy, strength):
    theirs = np.stack([Views(policy, strength)(patch, key) for patch, key in zip(patches, KEYS, strict=True)])
    apart = np.abs(rendered(patches, drawn(policy, strength=strength)).astype(int) - theirs)
    if policy in ("none", "d4") or not strength:
        assert not apart.any()
    assert apart.max() <= 1
    assert apart.mean() < (0.001 if policy == "standard" else 0.15)


def test_the_steps_of_strong_happen_as_often_as_in_albumentations():
    views = drawn("strong", [(step,) for step in range(2000)])
    shares = {step: np.mean([getattr(view, step) is not None for view in views]) for step in ("stain", "warp", "blur", "holes")}
    assert shares == pytest.approx({"stain": 1, "warp": 0.5, "blur": 0.2, "holes": 0.3}, abs=0.04)


@pytest.mark.parametrize("element", range(8))
def test_d4_is_equal_to_the_bit(patches, element):
    turned = turn(planar(patches), torch.full((len(patches),), element))
    assert np.array_equal(turned.permute(0, 2, 3, 1).numpy(), np.stack([dihedral(patch, element) for patch in patches]))


def test_the_same_matrix_jitters_stain_to_the_same_values(patches):
    jitter = StainJitter()
    jitter.set_random_seed(0)
    matrices = [jitter.get_params()["matrix"] for _ in patches]
    theirs = np.stack([jitter.apply(patch, matrix) for patch, matrix in zip(patches, matrices, strict=True)])
    mine = stain(planar(patches).float(), torch.tensor(np.stack(matrices), dtype=torch.float32)).permute(0, 2, 3, 1).numpy()
    assert np.abs(mine - theirs).max() < 0.51  # theirs are rounded


def test_white_stays_white_and_an_unjittered_patch_black():
    white = torch.full((1, 3, 4, 4), 255.0)
    assert torch.equal(stain(white, torch.tensor([[[1.4, 0.1, 0], [0, 0.7, 0], [0.1, 0, 1.2]]])), white)
    black = np.zeros((2, 4, 4, 3), np.uint8)
    shown = rendered(black, [ViewParameters(), ViewParameters(stain=np.eye(3))])
    assert not shown[0].any() and (shown[1] == 1).all()  # to a density, 0 counts as 1


def test_a_warp_reads_the_places_that_its_matrix_names():
    image = torch.arange(25.0).view(1, 1, 5, 5).expand(1, 3, 5, 5)
    moved = warp(image, torch.tensor([[[1.0, 0, 2], [0, 1, -1]]]))[0, 0]
    rows, columns = [1, 0, 1, 2, 3], [2, 3, 4, 3, 2]  # reflected at the border px itself
    assert torch.allclose(moved, image[0, 0][rows][:, columns], atol=1e-4)
    between = warp(image, torch.tensor([[[1.0, 0, 0.5], [0, 1, 0]]]))[0, 0]
    assert torch.allclose(between[:, :4], image[0, 0, :, :4] + 0.5, atol=1e-4)


def test_a_blur_spreads_one_px_by_its_kernel_and_reflects_the_border():
    image = torch.zeros(2, 3, 7, 7)
    image[0, :, 3, 3] = image[1, :, 3, 0] = 16
    kernel = torch.tensor([0.25, 0.5, 0.25])
    shown = blur(image, kernel.expand(2, 3))
    assert torch.allclose(shown[0, 0, 2:5, 2:5], 16 * kernel[:, None] * kernel)
    assert torch.allclose(shown[1, 0, 3, :3], torch.tensor([4.0, 2.0, 0.0]))  # column 0 is its own only once


def test_boxes_are_erased_in_their_colours_and_later_ones_lie_on_top():
    holes = torch.tensor([[[0.0, 1, 2, 3, 10, 20, 30], [1, 1, 4, 2, 1, 2, 3], [0, 0, 0, 0, 0, 0, 0]]])
    shown = erase(torch.full((1, 3, 4, 4), 99.0), holes)[0]
    assert shown[0].tolist() == [[99, 99, 99, 99], [10, 1, 1, 1], [10, 10, 99, 99], [99, 99, 99, 99]]
    assert shown[:, 2, 0].tolist() == [10, 20, 30]


@pytest.mark.parametrize("policy", POLICIES)
def test_a_view_is_the_same_alone_and_in_a_batch(patches, policy):
    views = drawn(policy)
    together = rendered(patches, views).astype(int)
    alone = np.concatenate([rendered(patches[n : n + 1], [view]) for n, view in enumerate(views)])
    assert np.abs(together - alone).max() <= 1
    assert (together != alone).mean() < 1e-3


def test_policies_may_mix_in_a_batch(patches):
    views = [Views(policy).parameters(key, 48) for policy, key in zip(POLICIES * 24, KEYS, strict=True)]
    shown = rendered(patches, views).astype(int)
    theirs = np.stack([Views(policy)(patch, key) for policy, patch, key in zip(POLICIES * 24, patches, KEYS, strict=True)])
    assert np.array_equal(shown[::4], patches[::4])
    assert np.abs(shown - theirs).max() <= 1


@pytest.mark.parametrize("policy", POLICIES)
def test_parameters_are_a_pure_function_of_the_key(policy):
    one, other = Views(policy), Views(policy)
    first = pack(torch.empty(0), [one.parameters(key, 48) for key in KEYS])
    again = pack(torch.empty(0), [other.parameters(key, 48) for key in reversed(KEYS)][::-1])
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


def test_the_largest_views_find_room():
    packed = pack(torch.empty(0), drawn("strong", [(step,) for step in range(500)], strength=3.0))
    assert len(Views("strong", 3.0).compose.transforms) == 4
    longest = max(len(view.blur) for view in drawn("strong", [(n,) for n in range(2000)], 3.0) if view.blur is not None)
    assert longest <= MOST_TAPS
    assert packed.parameters[:, ELEMENT].max() == 7
    assert packed.parameters[:, HOLES].any(0).all()
