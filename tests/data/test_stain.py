import numpy as np
import pandas as pd

from pcam_ssl.data.splits import PATCH_STATISTICS, cluster, proxy_groups, slide_clusters


def rows_of(values, hashes=None):
    """One patch per value, every statistic equal to it."""
    frame = pd.DataFrame({name: np.asarray(values, dtype=np.float32) for name in PATCH_STATISTICS})
    return frame.assign(pixel_hash=[str(n) for n in range(len(frame))] if hashes is None else hashes)


def test_cluster_finds_separate_groups():
    numbers = cluster(np.array([[0.0], [0.1], [10.0], [10.1]]), 2, seed=0)
    assert numbers[0] == numbers[1] != numbers[2] == numbers[3]


def test_cluster_weighs_each_column_by_its_own_spread():
    wide = np.array([0, 1000, 0, 1000]), np.array([0.0, 0.0, 1.0, 1.0]), np.array([0.0, 0.0, 1.1, 1.1])
    numbers = cluster(np.stack(wide, axis=1), 2, seed=0)
    assert numbers[0] == numbers[1] != numbers[2] == numbers[3]


def test_cluster_makes_no_more_clusters_than_distinct_rows():
    assert set(cluster(np.ones((5, 3)), 4, seed=0)) == {0}


def test_slides_that_look_alike_share_a_cluster():
    groups = pd.Series(["a", "a", "b", "b", "c", "c"])
    clusters = slide_clusters(rows_of([0.1, 0.3, 0.2, 0.2, 0.9, 0.9]), groups, 2, seed=0)
    assert clusters["a"] == clusters["b"] != clusters["c"]


def test_exact_copies_share_a_proxy_group_even_where_statistics_differ():
    groups = proxy_groups(rows_of([0.1, 0.9, 0.1, 0.9, 0.5], hashes=["p", "q", "q", "p", "r"]), 3, seed=0)
    assert groups[0] == groups[3] and groups[1] == groups[2] and groups.nunique() == 3


def test_proxy_groups_keep_the_index_and_repeat():
    rows = rows_of(np.linspace(0, 1, 50)).set_index(np.arange(100, 150))
    groups = proxy_groups(rows, 6, seed=3)
    assert list(groups.index) == list(rows.index) and groups.equals(proxy_groups(rows, 6, seed=3))
