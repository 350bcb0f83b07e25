import io

import numpy as np
import pytest
from PIL import Image

from pcam_ssl.audit.duplicates import SAME_PICTURE, image_correlation

HALVES = np.repeat([[0, 200]], 12, axis=1)  # [1, 24]: left dark, right bright


def picture(values):
    """Grey pixels [24, 24, 3]."""
    return np.broadcast_to(values, (24, 24))[..., None].repeat(3, axis=-1).astype(np.uint8)


def likeness_of(one, other):
    return image_correlation(np.stack([one, other]), np.array([0]), np.array([1])).item()


def test_brightness_contrast_and_turning_do_not_count():
    assert likeness_of(picture(HALVES), picture(HALVES.T // 2 + 30)) == pytest.approx(1)


def test_the_correlation_of_halves_and_a_quarter_by_hand():
    quarter = (np.arange(24) < 12) & (np.arange(24) < 12)[:, None]
    # Without the mean: +-1/2 on halves, 3/4 and -1/4 on quarters; their product over the product of lengths is 1 / sqrt(3).
    assert likeness_of(picture(HALVES), picture(200 * quarter)) == pytest.approx(1 / np.sqrt(3))


@pytest.mark.parametrize("size_px", [20, 32, 96])
def test_any_size_is_averaged_the_same_way_round(size_px, make_pixels):
    patch = make_pixels(1, size_px)[0]
    assert likeness_of(patch, np.rot90(patch[:, ::-1])) == pytest.approx(1)


def test_pairs_beyond_one_chunk_keep_their_order(make_pixels):
    pixels = make_pixels(3)
    first, second = np.tile([0, 1, 2], 800), np.tile([0, 2, 2], 800)
    found = image_correlation(pixels, first, second)
    assert len(found) == 2400
    assert found[::3] == pytest.approx(1)
    assert found[1::3] == pytest.approx(likeness_of(pixels[1], pixels[2]))


def test_real_patches_saved_again_are_one_picture_and_real_neighbours_are_not(shared):
    import pyarrow.parquet as pq

    images = pq.read_table(shared / "pcam-mini" / "valid-00000-of-00001.parquet", columns=["image"])["image"][:60].to_pylist()
    patches = [Image.open(io.BytesIO(image["bytes"])).convert("RGB") for image in images]
    again = []
    for patch in patches:
        patch.transpose(Image.Transpose.ROTATE_90).save(buffer := io.BytesIO(), "JPEG", quality=75)
        again.append(Image.open(buffer))
    pixels = np.stack([np.asarray(patch) for patch in patches + again])
    assert image_correlation(pixels, np.arange(60), np.arange(60) + 60).min() > SAME_PICTURE
    assert image_correlation(pixels, np.arange(59), np.arange(59) + 1).max() < SAME_PICTURE
