"""Embedding indexes: building, saving, loading, and refusing."""

import json

import faiss
import numpy as np
import pandas as pd
import pytest

from pcam_ssl.errors import UserError
from pcam_ssl.neighbors import faiss_index as backends
from pcam_ssl.neighbors.faiss_index import choose_backend, in_chunks
from pcam_ssl.neighbors.index import build_index, load_index, save_index
from pcam_ssl.neighbors.search import search

REBUILD = "pcam-ssl search runs/m --rebuild"


def patches(n, n_slides=4):
    """A table of n patches; slides alternate, so that the index must reorder them."""
    rows = np.arange(n)
    return pd.DataFrame({"id": [f"p{row}" for row in rows], "label": rows % 2, "wsi": [f"s{row % n_slides}" for row in rows]})


@pytest.fixture
def embeddings():
    return np.random.default_rng(0).normal(size=(60, 8)).astype(np.float32)


def test_vectors_are_unit_rows_slide_by_slide(embeddings):
    index = build_index(embeddings, patches(60))
    expected = embeddings[index.order] / np.linalg.norm(embeddings[index.order], axis=1, keepdims=True)
    np.testing.assert_allclose(index.vectors, expected, atol=1e-6)
    assert index.table["wsi"].iloc[index.order].tolist() == sorted(index.table["wsi"])


def test_the_range_of_a_slide_holds_its_patches(embeddings):
    index = build_index(embeddings, patches(60))
    for name, (start, stop) in zip(index.slides, index.slide_ranges, strict=True):
        assert set(index.table["wsi"].iloc[index.order[start:stop]]) == {name}
        assert stop - start == 15


def test_patches_of_unknown_slide_come_after_all_slides(embeddings):
    table = patches(60)
    table.loc[[0, 5], "wsi"] = None
    index = build_index(embeddings, table)
    assert index.order[-2:].tolist() == [0, 5]
    assert index.slide_ranges.max() == 58


def test_the_exact_index_holds_its_vectors_once(embeddings):
    index = build_index(embeddings, patches(60))
    assert index.vectors.ctypes.data == int(index.faiss_index.get_xb())
    assert index.faiss_index.codes.size() == 60 * 8 * 4


def test_a_memory_map_of_half_floats_streams_in(tmp_path, embeddings, monkeypatch):
    monkeypatch.setattr("pcam_ssl.neighbors.faiss_index.CHUNK", 7)
    mapped = np.lib.format.open_memmap(tmp_path / "e.npy", mode="w+", dtype=np.float16, shape=embeddings.shape)
    mapped[:] = embeddings
    whole = build_index(embeddings, patches(60))
    np.testing.assert_allclose(build_index(mapped, patches(60)).vectors, whole.vectors, atol=2e-3)


def test_long_vectors_do_not_overflow():
    index = build_index(np.array([[3e30, 4e30], [1e-30, 0]], dtype=np.float32), patches(2))
    np.testing.assert_allclose(index.vectors[index.places], [[0.6, 0.8], [1, 0]], atol=1e-6)


@pytest.mark.parametrize("factory", ["Flat", "IVF2,Flat", "HNSW8", "PCA4,IVF2,Flat", "SQ8"])
def test_a_saved_index_finds_the_same_neighbours(tmp_path, embeddings, factory):
    index = build_index(embeddings, patches(60), factory=factory, dataset_digest="d", network_digest="n")
    save_index(index, tmp_path / "index")
    loaded = load_index(tmp_path / "index", rebuild=REBUILD, dataset_digest="d", network_digest="n")
    for before, after in zip(search(index, embeddings, 5), search(loaded, embeddings, 5), strict=True):
        np.testing.assert_array_equal(before, after)
    pd.testing.assert_frame_equal(loaded.table, index.table)
    assert loaded.notes == index.notes


def test_saved_ids_are_in_the_order_of_the_faiss_file(tmp_path, embeddings):
    index = build_index(embeddings, patches(60))
    save_index(index, tmp_path / "index")
    ids = pd.read_parquet(tmp_path / "index" / "ids.parquet")
    stored = faiss.read_index(str(tmp_path / "index" / "index.faiss"))
    row = int(ids["id"][7][1:])
    np.testing.assert_allclose(stored.reconstruct(7), embeddings[row] / np.linalg.norm(embeddings[row]), atol=1e-6)
    assert row == ids["row"][7]


def test_notes_hold_the_origin_of_the_index(tmp_path, embeddings):
    save_index(build_index(embeddings, patches(60), factory="IVF9,Flat", dataset_digest="d", network_digest="n"), tmp_path / "i")
    notes = json.loads((tmp_path / "i" / "index.json").read_text())
    assert notes.pop("created").endswith("+00:00")
    assert notes == {
        "factory": "IVF9,Flat",
        "parameters": {"nprobe": 3},
        "dimension": 8,
        "count": 60,
        "dataset_digest": "d",
        "network_digest": "n",
        "backend": "cpu",
        "faiss_version": faiss.__version__,
        "metric": "cosine (inner product of unit vectors)",
    }


def test_saving_again_replaces_the_index_and_leaves_no_other_files(tmp_path, embeddings):
    save_index(build_index(embeddings, patches(60)), tmp_path / "index")
    save_index(build_index(embeddings[:10], patches(10)), tmp_path / "index")
    assert len(load_index(tmp_path / "index", rebuild=REBUILD)) == 10
    assert [path.name for path in tmp_path.iterdir()] == ["index"]


def test_a_failed_save_keeps_the_old_index(tmp_path, embeddings, monkeypatch):
    save_index(build_index(embeddings, patches(60)), tmp_path / "index")
    monkeypatch.setattr("pcam_ssl.neighbors.index.write_json", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        save_index(build_index(embeddings[:10], patches(10)), tmp_path / "index")
    assert len(load_index(tmp_path / "index", rebuild=REBUILD)) == 60
    assert [path.name for path in tmp_path.iterdir()] == ["index"]


@pytest.mark.parametrize("kind", ["dataset", "network"])
def test_an_index_of_another_dataset_or_network_is_refused(tmp_path, embeddings, kind):
    digests = {"dataset_digest": "d" * 64, "network_digest": "n" * 64}
    save_index(build_index(embeddings, patches(60), **digests), tmp_path / "index")
    with pytest.raises(UserError) as caught:
        load_index(tmp_path / "index", rebuild=REBUILD, **{**digests, f"{kind}_digest": "f" * 64})
    own = kind[0] * 12
    assert str(caught.value) == (
        f"{tmp_path}/index: the index is of another {kind} (digest {own}, not ffffffffffff); rebuild it with `{REBUILD}`"
    )


def test_an_absent_index_names_the_command(tmp_path):
    with pytest.raises(UserError, match=f"no such index; build it with `{REBUILD}`"):
        load_index(tmp_path / "index", rebuild=REBUILD)


@pytest.mark.parametrize("name", ["index.faiss", "ids.parquet", "index.json"])
def test_a_damaged_file_names_the_command(tmp_path, embeddings, name):
    save_index(build_index(embeddings, patches(60)), tmp_path / "index")
    path = tmp_path / "index" / name
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(UserError) as caught:
        load_index(tmp_path / "index", rebuild=REBUILD)
    assert str(caught.value).startswith(f"{tmp_path}/index: the index is damaged (")
    assert str(caught.value).endswith(f"); rebuild it with `{REBUILD}`")
    assert len(caught.value.problems) == 1 and "\n" not in str(caught.value)


def test_files_of_two_indexes_are_refused(tmp_path, embeddings):
    save_index(build_index(embeddings, patches(60)), tmp_path / "a")
    save_index(build_index(embeddings[:50], patches(50)), tmp_path / "b")
    (tmp_path / "b" / "index.faiss").write_bytes((tmp_path / "a" / "index.faiss").read_bytes())
    with pytest.raises(UserError, match=r"its files disagree: 60 vectors, 50 ids, 50 in index\.json"):
        load_index(tmp_path / "b", rebuild=REBUILD)


@pytest.mark.parametrize(("value", "what"), [(np.nan, "NaN or infinite"), (np.inf, "NaN or infinite"), (0, "all zeros")])
@pytest.mark.parametrize("factory", ["Flat", "HNSW8"])
def test_zero_and_non_finite_embeddings_are_named(embeddings, value, what, factory):
    embeddings[[3, 9, 11, 40]] = value
    with pytest.raises(UserError) as caught:
        build_index(embeddings, patches(60), factory=factory)
    assert str(caught.value).startswith(f"4 of 60 embeddings are {what}, first of id p3, p9, p11; ")


def test_an_unknown_factory_is_refused(embeddings):
    with pytest.raises(UserError) as caught:
        build_index(embeddings, patches(60), factory="Flatt")
    assert str(caught.value) == (
        "--index 'Flatt' is no factory string that FAISS takes for 8 values (could not parse index string Flatt); "
        "try Flat, HNSW32, IVF1024,Flat"
    )


@pytest.mark.parametrize("factory", ["IVF64,Flat", "PQ4"])
def test_too_few_patches_to_train_on_are_refused_in_one_line(embeddings, factory):
    with pytest.raises(UserError) as caught:
        build_index(embeddings, patches(60), factory=factory)
    assert str(caught.value).startswith(
        f"--index {factory}: cannot be trained on 60 patches (Number of training points (60) should"
    )
    assert str(caught.value).endswith("; take fewer cells, or the exact index Flat")
    assert "\n" not in str(caught.value)


def test_an_unknown_parameter_is_refused(embeddings):
    with pytest.raises(UserError, match="IndexHNSWFlat has no search parameter nprobe=4; leave it out"):
        build_index(embeddings, patches(60), factory="HNSW8", parameters={"nprobe": 4})


def test_an_empty_gallery_is_refused():
    with pytest.raises(UserError, match="the gallery is empty"):
        build_index(np.empty((0, 8), dtype=np.float32), patches(0))


@pytest.fixture
def gpus(monkeypatch):
    def seen(count):
        monkeypatch.setattr(backends.faiss, "StandardGpuResources", object, raising=False)
        monkeypatch.setattr(backends.faiss, "get_num_gpus", lambda: count, raising=False)

    return seen


@pytest.mark.parametrize(
    ("count", "factory", "name", "reason"),
    [
        (2, "Flat", "gpu", "2 GPUs seen"),
        (2, "IVF1024,PQ16", "gpu", "2 GPUs seen"),
        (2, "HNSW32", "cpu", "FAISS cannot search HNSW32 on a GPU"),
        (0, "Flat", "cpu", "FAISS sees no GPU"),
    ],
)
def test_auto_takes_a_gpu_where_faiss_supports_it(gpus, count, factory, name, reason):
    gpus(count)
    chosen = choose_backend("auto", factory)
    assert (chosen.name, chosen.reason) == (name, f"FAISS {faiss.__version__}, {reason}")


def test_backend_gpu_without_a_gpu_is_refused(gpus):
    gpus(0)
    with pytest.raises(UserError, match="backend gpu: FAISS sees no GPU; choose backend cpu, and see `pcam-ssl doctor`"):
        choose_backend("gpu")


def test_an_unknown_backend_is_refused():
    with pytest.raises(UserError, match="backend 'tpu' is unknown; choose auto, cpu, or gpu"):
        choose_backend("tpu")


def search_that_fits(limit):
    """A search that runs out of memory above `limit` queries, as FAISS says it, and the sizes it was tried with."""
    sizes = []

    def run(start, stop):
        sizes.append(stop - start)
        if stop - start > limit:
            raise RuntimeError(
                "StandardGpuResources: alloc fail type TemporaryMemoryOverflow ... cudaMalloc error out of memory [2]"
            )
        return np.arange(start, stop), -np.arange(start, stop)

    return run, sizes


def test_out_of_memory_halves_the_chunks():
    run, sizes = search_that_fits(30)
    there, negative = in_chunks(run, 100, 1000, "gpu")
    np.testing.assert_array_equal(there, np.arange(100))
    np.testing.assert_array_equal(negative, -np.arange(100))
    assert sizes == [100, 50, 25, 25, 25, 25]


def test_out_of_memory_in_the_smallest_chunk_is_one_line():
    with pytest.raises(UserError) as caught:
        in_chunks(search_that_fits(3)[0], 100, 1000, "gpu")
    assert str(caught.value) == (
        "search: the gpu ran out of memory; choose backend cpu, or take a compressed index such as `--index IVF1024,PQ32`"
    )


def test_other_failures_pass_through():
    def run(start, stop):
        raise RuntimeError("Error: 'd == x.d' failed")

    with pytest.raises(RuntimeError, match="failed"):
        in_chunks(run, 10, 10, "gpu")
