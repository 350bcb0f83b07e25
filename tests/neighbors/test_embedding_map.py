import sys

import numpy as np
import pytest
import torch

from pcam_ssl.errors import UserError
from pcam_ssl.neighbors.embedding_map import embedding_map


@pytest.fixture(scope="module")
def groups():
    """Three well separated groups of 40 points in 8 dimensions."""
    random = np.random.default_rng(1)
    centres = 20 * np.eye(3, 8)
    return np.concatenate([centre + random.normal(size=(40, 8)) for centre in centres]).astype(np.float32)


def spread(flat):
    """The least distance between centres of the three groups, by the greatest distance of a point from its own centre."""
    parts = flat.reshape(3, 40, 2)
    centres = parts.mean(axis=1)
    between = min(np.linalg.norm(centres[a] - centres[b]) for a, b in ((0, 1), (0, 2), (1, 2)))
    return between / np.linalg.norm(parts - centres[:, None], axis=2).max()


def test_pca_of_a_flat_plane_keeps_every_distance():
    random = np.random.default_rng(0)
    plane = random.normal(size=(50, 2)) * (3, 1)
    axes = np.linalg.qr(random.normal(size=(8, 2)))[0]
    flat = embedding_map(plane @ axes.T + 5)
    distance = np.linalg.norm(plane[:, None] - plane[None], axis=2)
    np.testing.assert_allclose(np.linalg.norm(flat[:, None] - flat[None], axis=2), distance, atol=1e-5)
    assert flat.dtype == np.float32


def test_groups_are_separated_in_the_map(groups):
    assert spread(embedding_map(groups)) > 2


def test_rows_outside_the_sample_are_placed_with_those_inside(groups):
    flat = embedding_map(groups, sample=30)
    assert flat.shape == (120, 2)
    assert spread(flat) > 2


def test_the_same_seed_gives_the_same_map(groups):
    assert (embedding_map(groups, seed=3, sample=50) == embedding_map(groups, seed=3, sample=50)).all()
    assert (embedding_map(groups, seed=3, sample=50) != embedding_map(groups, seed=4, sample=50)).any()


def test_chunks_do_not_change_the_map(groups, monkeypatch):
    whole = embedding_map(groups, sample=30)
    monkeypatch.setattr("pcam_ssl.neighbors.embedding_map.CHUNK", 7)
    np.testing.assert_allclose(embedding_map(groups, sample=30), whole, atol=1e-4)


def test_memory_mapped_half_floats_are_accepted(groups, tmp_path):
    np.save(tmp_path / "e.npy", groups.astype(np.float16))
    mapped = np.load(tmp_path / "e.npy", mmap_mode="r")
    np.testing.assert_allclose(embedding_map(mapped), embedding_map(groups), atol=0.1)


@pytest.mark.parametrize("shape", [(1, 8), (2, 8), (5, 1), (0, 8)], ids=["one patch", "two", "one number", "none"])
def test_fewer_than_two_directions_still_give_a_map(shape):
    flat = embedding_map(np.arange(shape[0] * shape[1], dtype=np.float32).reshape(shape))
    assert flat.shape == (shape[0], 2)
    assert np.isfinite(flat).all()


def test_an_unknown_map_names_the_known_ones():
    with pytest.raises(UserError, match="map tsne: choose pca or umap"):
        embedding_map(np.zeros((3, 2)), "tsne")


def test_absent_umap_names_the_install_command(monkeypatch, groups):
    monkeypatch.setitem(sys.modules, "umap", None)
    with pytest.raises(UserError, match=r"pip install 'pcam-ssl\[explore\]'"):
        embedding_map(groups, "umap")


@pytest.fixture(scope="module")
def umapped(groups):
    """The first UMAP of this process, and torch's threads before and after."""
    pytest.importorskip("umap", reason="UMAP is in the extra pcam-ssl[explore]")
    before = torch.get_num_threads()
    return embedding_map(groups, "umap", sample=90), before, torch.get_num_threads()


def test_umap_keeps_groups_together(umapped, groups):
    flat, *_ = umapped
    assert spread(flat) > 1
    assert (embedding_map(groups, "umap", sample=90) == flat).all()


def test_umap_does_not_change_the_threads_of_torch(umapped):
    _, before, after = umapped
    assert after == before


def test_umap_of_too_few_patches_is_refused(groups):
    pytest.importorskip("umap", reason="UMAP is in the extra pcam-ssl[explore]")
    with pytest.raises(UserError, match="10 patches are too few"):
        embedding_map(groups[:10], "umap")
