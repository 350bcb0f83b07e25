import hashlib
import io
from collections import defaultdict

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from pcam_ssl.data.images import OPTICAL_DENSITY, UNMIX, VIEW_PAIRS, measure, view_hashes


def flat(colour, size_px=8):
    return np.full((1, size_px, size_px, 3), colour, np.uint8)


def dihedral_views(pixels):
    for turns in range(4):
        turned = np.rot90(pixels, turns, axes=(1, 2))
        yield np.ascontiguousarray(turned)
        yield np.ascontiguousarray(turned[:, :, ::-1])


def distances(hashes, others):
    def bits(texts):
        return np.array([np.unpackbits(np.frombuffer(bytes.fromhex(text), np.uint8)) for text in texts], dtype=np.float32)

    a, b = bits(hashes), bits(others)
    return (a @ (1 - b).T + (1 - a) @ b.T).astype(int)


@pytest.fixture(scope="module")
def tissue(shared):
    """1,000 real patches uint8 [1000, 96, 96, 3]."""
    rows = pq.read_table(shared / "pcam-mini" / "valid-00000-of-00001.parquet").column("image").slice(0, 1000).to_pylist()
    return np.stack([np.asarray(Image.open(io.BytesIO(row["bytes"]))) for row in rows])


def test_white_has_no_optical_density():
    found = measure(flat(255))
    assert found["brightness"] == [1.0]
    assert [found[name][0] for name in ("od_r", "od_g", "od_b", "stain_h", "stain_e")] == pytest.approx([0] * 5, abs=1e-6)


def test_optical_density_is_the_negative_decimal_logarithm():
    found = measure(flat((255, 128, 0)))
    assert found["od_r"][0] == pytest.approx(0)
    assert found["od_g"][0] == pytest.approx(0.29933, abs=1e-5)  # -log10(128 / 255)
    assert found["od_b"][0] == pytest.approx(2.40654, abs=1e-5)  # 0 counts as 1: -log10(1 / 255)
    assert found["brightness"][0] == pytest.approx((255 + 128 + 0) / (3 * 255))


def test_mean_density_is_that_of_pixels_not_of_the_mean_colour():
    half = flat((255, 255, 255))
    half[0, :4] = (128, 255, 255)
    assert measure(half)["od_r"][0] == pytest.approx(0.29933 / 2, abs=1e-5)


@pytest.mark.parametrize(("stain", "vector"), [("stain_h", (0.65, 0.70, 0.29)), ("stain_e", (0.07, 0.99, 0.11))])
def test_pure_stain_is_unmixed_to_its_own_concentration(stain, vector):
    vector = np.array(vector) / np.linalg.norm(vector)
    found = measure(flat(np.rint(255 * 10 ** (-0.5 * vector))))
    other = ({"stain_h", "stain_e"} - {stain}).pop()
    assert found[stain][0] == pytest.approx(0.5, abs=0.01)
    assert found[other][0] == pytest.approx(0, abs=0.01)


def test_statistics_do_not_depend_on_the_batch(make_pixels):
    pixels = make_pixels(40, 24)
    whole, alone = measure(pixels), measure(pixels[33:34])
    assert {name: values[33] for name, values in whole.items()} == {name: values[0] for name, values in alone.items()}


def test_pixel_hash_is_that_of_exact_bytes(make_pixels):
    pixels = make_pixels(3)
    pixels[2] = pixels[0]
    pixels[1] = pixels[0]
    pixels[1, 0, 0, 0] ^= 1
    first, changed, same = measure(pixels)["pixel_hash"]
    assert first == same != changed


@pytest.mark.parametrize("size_px", [8, 31, 32, 96, 97])
def test_view_hash_is_the_same_for_all_dihedral_views(make_pixels, size_px):
    pixels = make_pixels(20, size_px)
    assert {tuple(view_hashes(view)) for view in dihedral_views(pixels)} == {tuple(view_hashes(pixels))}


def test_view_hash_of_tissue_is_the_same_for_all_dihedral_views(tissue):
    assert {tuple(view_hashes(view)) for view in dihedral_views(tissue[:200])} == {tuple(view_hashes(tissue[:200]))}


def test_view_hash_does_not_change_with_brightness_or_contrast(make_pixels):
    pixels = make_pixels(20, 32) // 4
    assert view_hashes(pixels * 2 + 31) == view_hashes(pixels)


def test_recompressed_tissue_stays_within_a_few_bits(tissue):
    def recompress(patch):
        buffer = io.BytesIO()
        Image.fromarray(np.rot90(patch)).save(buffer, "JPEG", quality=75)
        return np.asarray(Image.open(buffer))

    moved = np.diag(distances(view_hashes(np.stack([recompress(patch) for patch in tissue[:300]])), view_hashes(tissue[:300])))
    assert moved.mean() < 1
    assert (moved <= 4).mean() > 0.98


def test_different_tissue_is_as_far_as_chance(tissue):
    by_pixels = defaultdict(list)
    for row, patch in enumerate(tissue):
        by_pixels[patch.tobytes()].append(row)
    different = tissue[[rows[0] for rows in by_pixels.values()]]
    apart = distances(view_hashes(different), view_hashes(different))[np.triu_indices(len(different), 1)]
    assert apart.mean() == pytest.approx(32, abs=0.3)
    assert apart.std() == pytest.approx(4, abs=0.3)
    assert (apart <= 4).mean() < 2e-5


def test_a_mean_density_is_exact_whatever_the_order_of_its_sum(make_pixels):
    pixels = make_pixels(20, 96)
    density = [round(value * 2**23) for value in OPTICAL_DENSITY]
    assert all(whole / 2**23 == value for whole, value in zip(density, OPTICAL_DENSITY, strict=True))
    found = measure(pixels)
    for channel, name in enumerate(("od_r", "od_g", "od_b")):
        sums = [sum(density[value] for value in patch[..., channel].ravel().tolist()) for patch in pixels]
        assert found[name].tolist() == [np.float32(total / 2**23 / 96**2) for total in sums]


def plain(patch):
    """The statistics of one patch uint8 [H, H, 3] by their definitions, in whole numbers and Python's own sums."""
    size_px = len(patch)
    channels = [patch[..., channel].ravel().tolist() for channel in range(3)]
    densities = [round(value * 2**23) for value in OPTICAL_DENSITY]
    od = [sum(densities[value] for value in channel) / 2**23 / size_px**2 for channel in channels]
    stains = [od[0] * UNMIX[0, stain] + od[1] * UNMIX[1, stain] + od[2] * UNMIX[2, stain] for stain in (0, 1)]
    grey = patch.astype(int) @ np.array([1, 2, 1])
    cosines = np.cos(np.pi * (2 * np.arange(size_px) + 1) * np.arange(8)[:, None] / (2 * size_px))
    # Near 0 the cosine of the middle px is noise; the package's own basis is exactly 0 there.
    basis = np.rint(128 * np.where(np.abs(cosines) < 1e-12, 0, cosines)).astype(int)
    spectrum = (basis @ grey @ basis.T).tolist()
    bits = "".join(
        str(int(spectrum[u][v] * spectrum[p][q] + spectrum[v][u] * spectrum[q][p] > 0)) for (u, v), (p, q) in VIEW_PAIRS.tolist()
    )
    return {
        "brightness": np.float32(sum(map(sum, channels)) / (3 * 255 * size_px**2)),
        **{
            name: np.float32(value)
            for name, value in zip(("stain_h", "stain_e", "od_r", "od_g", "od_b"), (*stains, *od), strict=True)
        },
        "pixel_hash": hashlib.blake2b(patch.tobytes(), digest_size=16).hexdigest(),
        "view_hash": f"{int(bits, 2):016x}",
    }


@pytest.mark.parametrize("size_px", [8, 33, 96, 128, 129])
def test_statistics_are_those_of_a_plain_computation(make_pixels, size_px):
    """To the bit. Above 128 px hashes are computed in float64, below in float32; black, white and pure colours are among the patches."""
    pixels = make_pixels(21, size_px)
    pixels[0], pixels[1], pixels[2] = 0, 255, pixels[2] // 128 * 255
    found = measure(pixels)
    for row, patch in enumerate(pixels):
        expected = plain(patch)
        assert {name: values[row] for name, values in found.items()} == expected
        assert found["brightness"].dtype == np.float32


def test_turned_views_of_an_array_are_measured_as_their_copies(make_pixels):
    turned = np.rot90(make_pixels(5, 32), axes=(1, 2))[:, ::-1]
    alone = measure(np.ascontiguousarray(turned))
    assert {name: list(values) for name, values in measure(turned).items()} == {
        name: list(values) for name, values in alone.items()
    }


@pytest.mark.parametrize(
    ("size_px", "digest"),
    [
        (33, "eb85d183c46a3205a2ee60842b780b923aa1bce33be3383b845abdbf42341f58"),
        (96, "ad06cba2c4b88b4ec12518681e0d9a5792f35fefa138825a1eac79477a617f00"),
        (129, "eefda56b595b836a5ffc076f779fd95154b14dad4311b88d83a14d4f85429374"),
    ],
)
def test_statistics_are_the_same_on_every_cpu(make_pixels, size_px, digest):
    found = measure(make_pixels(50, size_px))
    numbers = np.stack([found[name] for name in ("brightness", "stain_h", "stain_e", "od_r", "od_g", "od_b")])
    assert hashlib.sha256(numbers.astype("<f4").tobytes() + "".join(found["view_hash"]).encode()).hexdigest() == digest
