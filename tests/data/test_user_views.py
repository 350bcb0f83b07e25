"""A user's own policy of views: read as albumentations.save wrote it, deterministic, and refused where it changes size or dtype."""

import json
import warnings

import albumentations as A
import numpy as np
import pytest

from pcam_ssl.data.views import StainJitter, Views, check_transform, dihedral
from pcam_ssl.errors import UserError

OWN = A.Compose([A.OneOf([A.HueSaturationValue(p=1), StainJitter()], p=0.8), A.GaussNoise(p=0.5), A.RGBShift(5, 6, 7, p=0.5)])
KEYS = [(0, n) for n in range(40)]


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """saved(transform): what albumentations.save writes of it, read back as plain values."""
    path = tmp_path_factory.mktemp("own") / "views.json"

    def saved(transform) -> dict:
        A.save(transform, path)
        return json.loads(path.read_text())

    return saved


@pytest.fixture(scope="module")
def patches():
    return np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), dtype=np.uint8)


def test_a_view_is_a_pure_function_of_patch_and_key(saved, patches):
    views, others = (Views("file", transform=saved(OWN)) for _ in range(2))
    first = [views(patches[n % 4], key) for n, key in enumerate(KEYS)]
    again = [others(patches[n % 4], key) for n, key in reversed(list(enumerate(KEYS)))][::-1]
    assert all(np.array_equal(one, other) for one, other in zip(first, again, strict=True))
    assert len({view.tobytes() for view in first}) > 35


def test_d4_comes_first_as_in_every_policy(saved, patches):
    views, d4 = Views("file", transform=saved(A.Compose([A.InvertImg(p=1)]))), Views("d4")
    assert all(np.array_equal(views(patches[0], key), 255 - d4(patches[0], key)) for key in KEYS)


def test_a_single_step_is_a_policy_too(saved, patches):
    views = Views("file", transform=saved(A.InvertImg(p=1)))
    elements = {(255 - dihedral(patches[0], element)).tobytes() for element in range(8)}
    assert {views(patches[0], key).tobytes() for key in KEYS} == elements


def test_strength_does_not_change_a_users_policy(saved, patches):
    weak, strong = (Views("file", strength, saved(OWN)) for strength in (0.0, 3.0))
    assert all(np.array_equal(weak(patches[0], key), strong(patches[0], key)) for key in KEYS)


def test_a_saved_policy_is_accepted_where_albumentations_reads_it_back(saved, patches):
    check_transform(saved(OWN), patches)


def problem(content, patches) -> str:
    with pytest.raises(UserError) as caught:
        check_transform(content, patches)
    assert str(caught.value).startswith("views.file: ") and "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("step", "found"),
    [
        (A.RandomCrop(16, 16, p=0.1), "a uint8 patch (32, 32, 3) into uint8 (16, 16, 3)"),
        (A.Resize(64, 64, p=0.1), "uint8 (64, 64, 3)"),
        (A.ToFloat(p=0.1), "float32 (32, 32, 3)"),
        (A.Normalize(p=0.1), "float32"),
        (A.ToTensorV2(p=1), "torch.uint8 (3, 32, 32)"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_policy_that_changes_size_or_dtype_is_refused(saved, patches, step, found):
    assert found in problem(saved(A.Compose([step])), patches)


@pytest.mark.parametrize(
    ("step", "named"),
    [
        ({"__class_fullname__": "os.system", "p": 1}, "no transform 'os.system'"),
        ({"__class_fullname__": "Lambda", "p": 1, "name": "mine"}, "__name__"),
        ({"p": 1}, "__class_fullname__"),
        ({"__class_fullname__": "GaussianBlur", "p": 5}, "less than or equal to 1"),
        (
            {"__class_fullname__": "GaussianBlur", "p": 0.5, "sigma_lmit": [1, 2]},
            "GaussianBlur of albumentations 2.0.8 does not take sigma_lmit",
        ),
        ({"__class_fullname__": "RGBShift", "p": 1, "noise_type": "gaussian"}, "does not take noise_type"),
        ({"__class_fullname__": "Mosaic", "p": 1}, "mosaic_metadata"),
        ("a", "refuses it"),
    ],
    ids=str,
)
def test_a_step_that_albumentations_cannot_take_is_named(patches, step, named):
    content = {"transform": {"__class_fullname__": "Compose", "p": 1.0, "transforms": [step]}}
    assert named in problem(content, patches)


def test_a_step_that_is_not_seeded_is_refused(saved, patches):
    class Unseeded(A.ImageOnlyTransform):
        def apply(self, img, **params):
            return img + np.uint8(np.random.default_rng().integers(256))

    assert "same key" in problem(saved(A.Compose([Unseeded(p=1)])), patches)


def test_a_rare_change_of_dtype_is_refused_when_it_is_drawn(saved, patches):
    views = Views("file", transform=saved(A.Compose([A.ToFloat(p=0.02)])))
    with pytest.raises(UserError, match=r"views\.file: .* float32"):
        for key in range(2000):
            views(patches[0], (key,))


def test_an_accepted_policy_gives_no_warnings(patches):
    steps = [{"__class_fullname__": "ShiftScaleRotate", "p": 0.5}, {"__class_fullname__": "HorizontalFlip"}]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_transform({"transform": {"__class_fullname__": "Compose", "transforms": steps}}, patches, 8)
