"""Stain jitter of training views: as large as between slides, larger in `strong`, and white stays white."""

import pickle
import runpy
from pathlib import Path

import cv2
import numpy as np
import pytest

from pcam_ssl.data.dataset import open_dataset
from pcam_ssl.data.images import UNMIX
from pcam_ssl.data.views import StainJitter, Views

REPOSITORY = Path(__file__).parents[2]
SHARED = REPOSITORY.parent / "shared" / "data"
MEASURE = runpy.run_path(str(REPOSITORY / "scripts" / "view_spread.py"))


def spread(policy: str, patches: np.ndarray, strength: float = 1.0) -> np.ndarray:
    return MEASURE["view_spread"](Views(policy, strength), patches, 48)


@pytest.fixture(scope="module")
def synthetic(slides):
    return np.asarray(open_dataset(slides).pixels)[::8]


@pytest.fixture(scope="module")
def kaggle_mini(tmp_path_factory):
    """The dataset of real patches."""
    if not (SHARED / "kaggle-mini.zip").exists():
        pytest.skip(f"real patches are not at {SHARED}")
    from pcam_ssl.data.importing import import_source

    path = tmp_path_factory.mktemp("real") / "kaggle-mini"
    import_source(SHARED / "kaggle-mini.zip", path, SHARED / "patch_id_wsi.csv")
    return open_dataset(path)


def test_on_real_patches_standard_jitters_as_slides_differ_and_strong_more(kaggle_mini):
    between = MEASURE["slide_stains"](kaggle_mini).std(axis=0, ddof=1)
    patches = MEASURE["full_patches"](np.asarray(kaggle_mini.pixels[::20]))
    assert spread("standard", patches) / between == pytest.approx([1, 1, 1], abs=0.25)
    assert (spread("strong", patches) / between > 1.5).all()


def test_on_synthetic_patches_strong_jitters_every_stain_more_than_standard(synthetic):
    assert (spread("standard", synthetic) > 0.02).all()
    assert (spread("strong", synthetic) > 1.5 * spread("standard", synthetic)).all()


@pytest.mark.parametrize("policy", ["standard", "strong"])
def test_strength_scales_the_stain_jitter(synthetic, policy):
    assert (spread(policy, synthetic, 0.5) < 0.7 * spread(policy, synthetic)).all()


@pytest.mark.parametrize(("policy", "darkest"), [("standard", 232), ("strong", 225)])
def test_white_background_stays_white(policy, darkest):
    assert MEASURE["background"](Views(policy), 400) >= darkest


def test_without_jitter_a_patch_does_not_change():
    patch = np.random.default_rng(0).integers(1, 256, (32, 32, 3), dtype=np.uint8)
    none = StainJitter((0, 0, 0), (0, 0, 0))
    assert np.array_equal(none(image=patch)["image"], patch)


@pytest.mark.parametrize("stain", [0, 1, 2])
def test_each_stain_is_scaled_and_shifted_separately(stain):
    """By hand: a pixel of mean density 0.3, the full size of a shift, holds c of a stain and then (1 + alpha) c + beta."""
    density = np.array([0.35, 0.4, 0.15])
    jitter = StainJitter((0.3, 0.3, 0.3), (0.03, 0.03, 0.14))
    jitter.random_generator = Draws(alpha := np.eye(3)[stain], beta := -0.5 * np.eye(3)[stain])
    moved = (density @ jitter.get_params()["matrix"]) @ UNMIX
    assert moved == pytest.approx(density @ UNMIX * (1 + 0.3 * alpha) + beta * (0.03, 0.03, 0.14))


class Draws:
    """A generator whose uniform draws are given."""

    def __init__(self, *rows):
        self.rows = np.array(rows)

    def uniform(self, low, high, shape):
        assert (low, high, shape) == (-1, 1, self.rows.shape)
        return self.rows


def test_pixels_follow_the_matrix_of_densities():
    """Twice the optical density is the square of the transmitted light: 128/255 becomes 64/255."""
    patch = np.full((2, 2, 3), (128, 200, 255), np.uint8)
    shown = StainJitter().apply(patch, 2 * np.eye(3))
    assert shown[0, 0].tolist() == [round(255 * (value / 255) ** 2) for value in (128, 200, 255)]


def test_colours_are_not_mixed_up():
    matrix = np.zeros((3, 3))
    matrix[0, 2] = 1  # red's density becomes blue's
    shown = StainJitter().apply(np.full((2, 2, 3), (100, 150, 200), np.uint8), matrix)
    assert shown[0, 0].tolist() == [255, 255, 100]


def test_no_draw_turns_the_darkest_pixels_bright_by_overflow():
    black = np.zeros((4, 4, 3), np.uint8)
    assert (StainJitter().apply(black, -9 * np.eye(3)) == 255).all()


def test_views_can_be_pickled_to_loader_processes(synthetic):
    views = Views("strong")
    again = pickle.loads(pickle.dumps(views))
    assert all(np.array_equal(again(patch, (1, n)), views(patch, (1, n))) for n, patch in enumerate(synthetic))


@pytest.fixture(scope="module")
def plain_keys():
    """Keys under which a strong view of one flat colour is flat again: nothing was erased. What is drawn does not depend on pixels."""
    flat = np.full((96, 96, 3), (150, 90, 160), np.uint8)
    keys = [(3, n) for n in range(300)]
    return [key for key in keys if not np.ptp(Views("strong")(flat, key), axis=(0, 1)).any()]


def test_strong_erases_up_to_three_boxes_in_three_of_ten_views(plain_keys):
    assert 0.6 < len(plain_keys) / 300 < 0.8


def test_borders_are_reflected_in_strong():
    flat = np.full((96, 96, 3), (150, 90, 160), np.uint8)
    assert all((Views("strong")(flat, (3, n)).max(axis=2) > 0).all() for n in range(100))


def darkness_of(view: np.ndarray) -> np.ndarray:
    """Of each pixel, 0 where it is not among the dark ones."""
    darkness = 255.0 - view.mean(axis=2)
    return np.where(darkness < darkness.max() / 3, 0, darkness)


def centre_of(view: np.ndarray) -> np.ndarray:
    return np.average(np.indices(view.shape[:2]).reshape(2, -1), axis=1, weights=darkness_of(view).ravel())


def line_of(view: np.ndarray) -> tuple[float, float]:
    """Length in px of the line between two dots, and its angle to the nearer axis in degrees."""
    spread = np.cov(np.indices(view.shape[:2]).reshape(2, -1), aweights=darkness_of(view).ravel())
    values, vectors = np.linalg.eigh(spread)
    return 2 * values[1] ** 0.5, np.degrees(np.arcsin(np.abs(vectors[:, 1]).min()))


def test_strong_shifts_the_centre_but_by_no_more_than_4_px(plain_keys):
    patch = np.full((96, 96, 3), 250, np.uint8)
    patch[46:50, 46:50] = 10
    off = np.array([np.abs(centre_of(Views("strong")(patch, key)) - 47.5).max() for key in plain_keys])
    assert 2.5 < off.max() <= 4.1
    assert 0.3 < (off > 0.05).mean() < 0.7


def test_strong_turns_by_up_to_15_degrees_and_scales_by_up_to_a_tenth(plain_keys):
    patch = np.full((96, 96, 3), 250, np.uint8)
    patch[46:50, 22:26] = patch[46:50, 70:74] = 10
    lengths, angles = np.array([line_of(Views("strong")(patch, key)) for key in plain_keys]).T
    assert 12 < angles.max() < 15.5
    assert lengths / 48 == pytest.approx(1, abs=0.12)
    assert np.ptp(lengths / 48) > 0.15


def likeness_of_neighbours(view: np.ndarray) -> float:
    """Correlation of pixels with those to their right, of the grey view; 0 for noise. No half-pixel shift makes more than 0.5."""
    grey = view[20:-20, 20:-20].mean(axis=2)
    return np.corrcoef(grey[:, :-1].ravel(), grey[:, 1:].ravel())[0, 1]


def test_some_strong_views_are_blurred(plain_keys):
    noise = np.repeat(np.random.default_rng(0).integers(60, 200, (96, 96, 1), dtype=np.uint8), 3, axis=2)
    blurred = np.mean([likeness_of_neighbours(Views("strong")(noise, key)) > 0.6 for key in plain_keys])
    assert likeness_of_neighbours(cv2.GaussianBlur(noise, (0, 0), 1.0)) > 0.6
    assert 0.02 < blurred < 0.2


def test_standard_moves_pixels_by_d4_only():
    patch = np.full((96, 96, 3), 250, np.uint8)
    patch[46:50, 46:50] = 10
    assert all(np.allclose(centre_of(Views("standard")(patch, (3, n))), 47.5) for n in range(50))
