"""Neighbours equal a plain double loop, with and without patches left out, in exact and approximate indexes."""

from dataclasses import replace

import faiss
import numpy as np
import pandas as pd
import pytest

from pcam_ssl.errors import UserError
from pcam_ssl.neighbors import search as neighbors
from pcam_ssl.neighbors.exact import masked_neighbors, matrix_products, outside_ranges
from pcam_ssl.neighbors.exclusion import leave_out, leave_out_slides
from pcam_ssl.neighbors.faiss_index import Backend
from pcam_ssl.neighbors.index import build_index
from pcam_ssl.neighbors.search import search


def names(codes):
    return pd.array([None if code < 0 else f"s{code}" for code in codes], dtype="str")


def gallery_of(embeddings, slides, factory="Flat", **columns):
    table = pd.DataFrame({"id": [f"p{row}" for row in range(len(embeddings))], "wsi": names(slides), **columns})
    return build_index(embeddings, table, factory=factory)


def plain(embeddings, queries, k, allowed):
    """Rows of the k nearest allowed, by a full sort with ties by row; `allowed` [Q, N]."""
    unit = embeddings.astype(np.float64) / np.linalg.norm(embeddings.astype(np.float64), axis=1, keepdims=True)
    rows = []
    for query, may in zip(queries.astype(np.float64), allowed, strict=True):
        similarity = np.where(may, (unit * query).sum(axis=1) / np.linalg.norm(query), -np.inf)
        best = np.lexsort((np.arange(len(unit)), -similarity))[:k]
        rows.append(np.where(similarity[best] > -np.inf, best, -1))
    return np.array(rows)


@pytest.fixture
def slides():
    """Sizes from 1 to 150, and some patches of unknown slide."""
    codes = np.concatenate([np.repeat(np.arange(9), [1, 150, 3, 40, 40, 7, 2, 30, 17]), np.full(10, -1)])
    return np.random.default_rng(1).permutation(codes)


@pytest.fixture
def embeddings(slides):
    rng = np.random.default_rng(2)
    return (rng.normal(size=(10, 6))[slides] + 0.3 * rng.normal(size=(len(slides), 6))).astype(np.float32)


def test_hand_computed():
    gallery = gallery_of(np.array([[1, 0], [0, 2], [3, 4], [-1, 0]], dtype=np.float32), [0, 0, 1, 1])
    similarity, rows = search(gallery, np.array([[5, 0]], dtype=np.float32), 4)
    assert rows.tolist() == [[0, 2, 1, 3]]
    np.testing.assert_allclose(similarity, [[1, 0.6, 0, -1]], atol=1e-6)
    assert (similarity.dtype, rows.dtype) == (np.float32, np.int64)


def test_plain_search_equals_a_full_sort(embeddings, slides):
    _, rows = search(gallery_of(embeddings, slides), embeddings, 12)
    np.testing.assert_array_equal(rows, plain(embeddings, embeddings, 12, np.ones((len(slides), len(slides)), dtype=bool)))


@pytest.mark.parametrize("k", [1, 5, 40])
@pytest.mark.parametrize("masked", [range(0), range(1, 400)], ids=["halved", "masked"])
def test_own_slide_left_out_equals_a_full_sort(embeddings, slides, k, masked, monkeypatch):
    monkeypatch.setattr(neighbors, "MASKED_QUERIES", masked)
    gallery = gallery_of(embeddings, slides)
    _, rows = search(gallery, embeddings, k, leave_out_slides(gallery, names(slides)))
    allowed = (slides[:, None] != slides) | (slides[:, None] < 0)
    np.testing.assert_array_equal(rows, plain(embeddings, embeddings, k, allowed))


@pytest.mark.parametrize("factory", ["Flat", "IVF16,Flat", "HNSW16", "PCA6,IVF4,Flat"])
def test_k_neighbours_are_found_beyond_a_thousand_excluded_ones(factory):
    rng = np.random.default_rng(3)
    near = np.array([1, 0, 0, 0, 0, 0]) + 0.01 * rng.normal(size=(2000, 6))
    far = np.array([0, 1, 0, 0, 0, 0]) + 0.1 * rng.normal(size=(300, 6))
    slides = np.concatenate([np.zeros(2000, dtype=int), rng.integers(1, 9, size=300)])
    embeddings = np.concatenate([near, far]).astype(np.float32)
    gallery = gallery_of(embeddings, slides, factory)
    _, rows = search(gallery, embeddings[:30], 20, leave_out_slides(gallery, ["s0"] * 30))
    assert rows.min() >= 2000
    if factory == "Flat":
        np.testing.assert_array_equal(rows, plain(embeddings, embeddings[:30], 20, np.tile(slides != 0, (30, 1))))


@pytest.mark.parametrize("factory", ["Flat", "IVF4,Flat", "HNSW16"])
def test_fewer_than_k_outside_the_slide_are_marked(factory):
    embeddings = np.random.default_rng(4).normal(size=(40, 5)).astype(np.float32)
    slides = np.where(np.arange(40) < 37, 0, 1)
    gallery = gallery_of(embeddings, slides, factory)
    exclusion = leave_out_slides(gallery, ["s0", "s1"])
    similarity, rows = search(gallery, embeddings[[0, 39]], 10, exclusion)
    assert set(rows[0, :3]) == {37, 38, 39}
    assert (rows[0, 3:] == -1).all() and np.isneginf(similarity[0, 3:]).all()
    assert (rows < 0).sum() == 7
    assert exclusion.left_out.tolist() == [37, 3]


@pytest.mark.parametrize("factory", ["Flat", "IVF4,Flat", "HNSW16"])
def test_a_gallery_of_the_query_slide_alone_has_no_neighbour(factory):
    embeddings = np.random.default_rng(4).normal(size=(40, 5)).astype(np.float32)
    gallery = gallery_of(embeddings, np.zeros(40, dtype=int), factory)
    _, rows = search(gallery, embeddings[:2], 3, leave_out_slides(gallery, ["s0", "s0"]))
    assert (rows == -1).all()


def test_a_gpu_index_finds_the_same_neighbours_as_the_cpu(embeddings, slides, monkeypatch):
    """FAISS's GPU calls are answered by its CPU ones: what is tested is which vectors each is asked for."""

    def knn_gpu(resources, queries, vectors, k, metric):
        calls.append((resources, metric))
        return faiss.knn(queries, vectors, k, metric)

    calls = []
    monkeypatch.setattr("faiss.knn_gpu", knn_gpu, raising=False)
    cpu = gallery_of(embeddings, slides)
    gpu = replace(cpu, backend=Backend("gpu", "test"), resources="resources", gpu_index=cpu.faiss_index)
    for exclusion in (None, leave_out(cpu, cpu.table)):
        np.testing.assert_array_equal(search(gpu, embeddings, 6, exclusion)[1], search(cpu, embeddings, 6, exclusion)[1])
    assert set(calls) == {("resources", faiss.METRIC_INNER_PRODUCT)}


def test_more_neighbours_than_a_gpu_selects_are_refused():
    embeddings = np.random.default_rng(0).normal(size=(3000, 4)).astype(np.float32)
    cpu = gallery_of(embeddings, np.zeros(3000, dtype=int))
    gpu = replace(cpu, backend=Backend("gpu", "test"), gpu_index=cpu.faiss_index)
    with pytest.raises(UserError, match="k 2,016 is more than FAISS selects on a GPU; choose k below 2,016, or backend cpu"):
        search(gpu, embeddings[:1], 2016)


def test_a_slide_that_is_not_in_the_gallery_excludes_nothing(embeddings, slides):
    gallery = gallery_of(embeddings, slides)
    exclusion = leave_out_slides(gallery, ["new"])
    assert exclusion.left_out.tolist() == [0]
    np.testing.assert_array_equal(search(gallery, embeddings[:1], 5, exclusion)[1], search(gallery, embeddings[:1], 5)[1])


def test_ties_go_to_the_lower_row():
    embeddings = np.array([[0, 1], [1, 0], [1, 0], [1, 0], [1, 0], [1, 0]], dtype=np.float32)
    gallery = gallery_of(embeddings, [5, 4, 3, 2, 1, 0])
    _, rows = search(gallery, np.array([[1, 0], [0, 1]], dtype=np.float32), 3)
    assert rows.tolist() == [[1, 2, 3], [0, 1, 2]]


def test_ties_outside_the_slide_go_to_the_lower_row():
    embeddings = np.tile(np.array([[1, 0]], dtype=np.float32), (50, 1))
    slides = np.arange(50) % 5
    gallery = gallery_of(embeddings, slides)
    _, rows = search(gallery, embeddings[:2], 4, leave_out_slides(gallery, ["s0", "s1"]))
    assert rows.tolist() == [[1, 2, 3, 4], [0, 2, 3, 4]]


def test_the_query_itself_is_left_out_on_any_slide(embeddings, slides):
    gallery = gallery_of(embeddings, slides)
    exclusion = leave_out(gallery, gallery.table, any_slide=True)
    _, rows = search(gallery, embeddings, 7, exclusion)
    np.testing.assert_array_equal(rows, plain(embeddings, embeddings, 7, ~np.eye(len(slides), dtype=bool)))
    assert (exclusion.left_out == 1).all()


def test_near_duplicates_are_left_out_and_counted_where_slides_are_unknown():
    embeddings = np.array([[1, 0], [1, 0.1], [1, 0.2], [1, 0.3], [0, 1]], dtype=np.float32)
    hashes = ["0000000000000000", "0000000000000000", "8000000000000003", "000000000000000f", "ffffffffffffffff"]
    gallery = gallery_of(embeddings, np.full(5, -1), view_hash=hashes)
    exclusion = leave_out(gallery, pd.DataFrame({"id": ["p0", None], "view_hash": [hashes[0], hashes[4]]}))
    assert exclusion.left_out.tolist() == [3, 1]
    assert search(gallery, embeddings[[0, 4]], 2, exclusion)[1].tolist() == [[3, 4], [3, 2]]


def test_with_known_slides_hashes_are_not_used():
    hashes = ["0" * 16] * 4
    gallery = gallery_of(np.eye(4, dtype=np.float32) + 1, [0, 0, 1, 1], view_hash=hashes)
    queries = pd.DataFrame({"id": ["p0"], "wsi": ["s0"], "view_hash": hashes[:1]})
    assert leave_out(gallery, queries).left_out.tolist() == [2]
    assert leave_out(gallery, queries, any_slide=True).left_out.tolist() == [1]


@pytest.mark.parametrize("factory", ["Flat", "IVF4,Flat", "HNSW16"])
def test_more_duplicates_than_extra_neighbours_retrieved(factory):
    rng = np.random.default_rng(5)
    repeated = np.tile([[1.0, 0, 0]], (200, 1)) + 1e-3 * rng.normal(size=(200, 3))
    embeddings = np.concatenate([repeated, rng.normal(size=(50, 3))]).astype(np.float32)
    hashes = ["0" * 16] * 200 + ["f" * 16] * 50
    gallery = gallery_of(embeddings, np.full(250, -1), factory, view_hash=hashes)
    exclusion = leave_out(gallery, gallery.table.iloc[:20])
    assert (exclusion.left_out == 200).all()
    _, rows = search(gallery, embeddings[:20], 5, exclusion)
    assert rows.min() >= 200


def test_chunks_of_queries_do_not_change_the_neighbours(embeddings, slides, monkeypatch):
    gallery = gallery_of(embeddings, slides)
    exclusion = leave_out(gallery, gallery.table)
    whole = search(gallery, embeddings, 6, exclusion)
    monkeypatch.setattr(neighbors, "QUERIES", 17)
    parts = search(gallery, embeddings, 6, exclusion)
    np.testing.assert_array_equal(parts[1], whole[1])
    np.testing.assert_array_equal(parts[0], whole[0])


def test_an_ivf_index_probing_all_cells_is_exact(embeddings, slides):
    table = pd.DataFrame({"id": [f"p{row}" for row in range(len(slides))], "wsi": names(slides)})
    gallery = build_index(embeddings, table, factory="IVF8,Flat", parameters={"nprobe": 8})
    _, rows = search(gallery, embeddings, 9, leave_out(gallery, table))
    exact = gallery_of(embeddings, slides)
    np.testing.assert_array_equal(rows, search(exact, embeddings, 9, leave_out(exact, table))[1])


def test_widening_restores_the_search_parameters(embeddings, slides):
    gallery = gallery_of(embeddings, slides, "IVF9,Flat")
    search(gallery, embeddings, 100, leave_out(gallery, gallery.table))
    assert faiss.extract_index_ivf(gallery.faiss_index).nprobe == 3


def test_no_queries_have_no_neighbours(embeddings, slides):
    gallery = gallery_of(embeddings, slides)
    similarity, rows = search(gallery, embeddings[:0], 4, leave_out(gallery, gallery.table[:0]))
    assert similarity.shape == rows.shape == (0, 4)


@pytest.mark.parametrize("k", [0, 41])
def test_k_beyond_the_gallery_is_refused(k):
    gallery = gallery_of(np.eye(40, dtype=np.float32), np.zeros(40, dtype=int))
    with pytest.raises(UserError, match=f"k {k} does not fit a gallery of 40 patches; choose k from 1 to 40"):
        search(gallery, np.eye(40, dtype=np.float32), k)


def test_k_may_be_the_whole_gallery(embeddings, slides):
    _, rows = search(gallery_of(embeddings, slides), embeddings[:3], len(slides))
    assert all(sorted(row) == list(range(len(slides))) for row in rows)


def test_queries_of_another_network_are_refused(embeddings, slides):
    with pytest.raises(UserError, match="queries of 4 values do not fit a gallery of 6: embed both with the same network"):
        search(gallery_of(embeddings, slides), embeddings[:, :4], 3)


def test_a_nan_query_is_named(embeddings, slides):
    gallery = gallery_of(embeddings, slides)
    queries = embeddings[:3].copy()
    queries[1] = np.nan
    with pytest.raises(UserError, match="1 of 3 embeddings are NaN or infinite, first of id b;"):
        search(gallery, queries, 3, query_ids=["a", "b", "c"])


@pytest.mark.parametrize("group", [2, 7, 10**6])
def test_masked_neighbors_equal_a_full_sort(embeddings, slides, monkeypatch, group):
    monkeypatch.setattr("pcam_ssl.neighbors.exact.GROUP", group)
    monkeypatch.setattr("pcam_ssl.neighbors.exact.MASKED", 5 * len(slides))
    gallery = gallery_of(embeddings, slides)
    unit = gallery.vectors[gallery.places[:23]]
    allowed = np.ones((23, len(slides)), dtype=bool)
    allowed[:, gallery.order[10:60]] = allowed[:, gallery.order[[2, 99]]] = False
    ranges, places = np.tile([10, 60], (23, 1)), [np.array([2, 99])] * 23
    _, rows = masked_neighbors(gallery.vectors, gallery.order, unit, 8, ranges, places)
    np.testing.assert_array_equal(rows, plain(embeddings, embeddings[:23], 8, allowed))


def test_each_query_compares_every_allowed_place_once():
    sizes = np.random.default_rng(6).integers(1, 40, size=50)
    ends = np.cumsum(sizes)
    ranges = np.stack([ends - sizes, ends], axis=1)[np.random.default_rng(7).integers(50, size=200)]
    ranges[::9] = 0
    seen = np.zeros((200, ends[-1]), dtype=int)

    def knn(queries, start, stop, k):
        seen[queries[:, 0].astype(int), start:stop] += 1
        return np.full((len(queries), k), -np.inf, dtype=np.float32), np.full((len(queries), k), -1)

    outside_ranges(knn, ends[-1], np.arange(200, dtype=np.float32)[:, None], ranges, 3)
    place = np.arange(ends[-1])
    np.testing.assert_array_equal(seen, (place < ranges[:, :1]) | (place >= ranges[:, 1:]))


def test_matrix_products_restore_the_threshold():
    before = faiss.cvar.distance_compute_blas_threshold
    with matrix_products(128):
        assert faiss.cvar.distance_compute_blas_threshold <= 1024
    assert faiss.cvar.distance_compute_blas_threshold == before


@pytest.fixture(params=[6, 33, 128])
def repeats(request):
    """Vectors [203, D] of eight kinds, and queries [40, D]: among equal vectors matrix products tell some apart."""
    rng = np.random.default_rng(8)
    kinds = rng.normal(size=(8, request.param)).astype(np.float32)
    return kinds[rng.integers(8, size=203)], (kinds[rng.integers(8, size=40)] + rng.normal(size=(40, 1))).astype(np.float32)


@pytest.mark.parametrize("k", [5, 100, 203])
@pytest.mark.parametrize("slides", [np.full(203, -1), np.arange(203) % 5], ids=["no slides", "slides"])
def test_equal_vectors_have_equal_similarity_and_are_in_order_of_row(repeats, slides, k):
    embeddings, queries = repeats
    gallery = gallery_of(embeddings, slides)
    similarity, rows = search(gallery, queries, k, leave_out_slides(gallery, ["s0"] * 40))
    allowed = np.tile((slides != 0) | (slides < 0), (40, 1))
    for query, line in enumerate(plain(embeddings, queries, k, allowed)):
        np.testing.assert_array_equal(rows[query], line)
        for kind in np.unique(embeddings[line[line >= 0]], axis=0):
            assert len(set(similarity[query, (embeddings[rows[query]] == kind).all(axis=1)].tolist()) - {-np.inf}) == 1


@pytest.mark.parametrize("masked", [range(0), range(1, 400)], ids=["halved", "masked"])
def test_a_query_has_the_same_neighbours_alone_and_in_a_batch(repeats, masked, monkeypatch):
    embeddings, queries = repeats
    slides = np.arange(203) % 5
    gallery = gallery_of(
        embeddings + np.float32(0.01) * np.random.default_rng(9).normal(size=embeddings.shape).astype(np.float32), slides
    )
    exclusion = leave_out_slides(gallery, ["s1"] * 40)
    alone = [search(gallery, queries[[query]], 20, exclusion.part([query])) for query in range(40)]
    monkeypatch.setattr(neighbors, "MASKED_QUERIES", masked)
    together = search(gallery, queries, 20, exclusion)
    for part in (0, 1):
        np.testing.assert_array_equal(together[part], np.concatenate([found[part] for found in alone]))
