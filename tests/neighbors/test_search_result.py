import json

import numpy as np
import pandas as pd
import pytest

from pcam_ssl.neighbors.exclusion import leave_out
from pcam_ssl.neighbors.index import COLUMNS, build_index
from pcam_ssl.neighbors.search import QUERY_COLUMNS, SearchResult, count_left_out
from pcam_ssl.tables import conform

HASH = "00000000000000ff"


@pytest.fixture
def gallery():
    """Patches a0, a1, a2 of slide a, b0 of slide b, and u0, u1 of no known slide, which look alike."""
    table = pd.DataFrame({"id": ["a0", "a1", "a2", "b0", "u0", "u1"], "wsi": ["a", "a", "a", "b", None, None]})
    table["view_hash"] = ["f" * 16, "0f" * 8, "f0" * 8, "3c" * 8, HASH, HASH]
    return build_index(np.eye(6), table.reindex(columns=list(COLUMNS)))


def counted(gallery, any_slide=False, **query) -> dict:
    queries = pd.DataFrame({"id": None, "wsi": None, "view_hash": None} | query, index=[0]).astype("str")
    return count_left_out(gallery, queries, leave_out(gallery, queries, any_slide)).iloc[0].to_dict()


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({"id": "a1", "wsi": "a", "view_hash": "0f" * 8}, (1, 2, 0)),
        ({"id": "u0", "view_hash": HASH}, (1, 0, 1)),
        ({"view_hash": HASH}, (0, 0, 2)),
        ({"id": "new", "wsi": "a", "view_hash": "1" * 16}, (0, 3, 0)),
        ({"id": "new", "wsi": "a", "view_hash": HASH}, (0, 3, 2)),
        ({"id": "new", "wsi": "z", "view_hash": "1" * 16}, (0, 0, 0)),
    ],
)
def test_the_query_its_slide_and_its_duplicates_are_counted_separately(gallery, query, expected):
    assert tuple(counted(gallery, **query).values()) == expected


def test_with_any_slide_only_the_query_itself_is_excluded(gallery):
    assert tuple(counted(gallery, any_slide=True, id="a1", wsi="a", view_hash="0f" * 8).values()) == (1, 0, 0)


def test_unknown_values_are_null_and_missing_neighbours_are_dropped(gallery):
    queries = conform(pd.DataFrame({"image": ["x.png"]}).reindex(columns=list(QUERY_COLUMNS)), QUERY_COLUMNS)
    left_out = pd.DataFrame({"itself": [0], "own_slide": [0], "duplicates": [0]})
    similarity = np.array([[0.5, -np.inf]], dtype=np.float32)
    result = SearchResult({"k": 2}, queries, gallery.table, similarity, np.array([[3, -1]]), left_out)
    query = {"id": None, "image": "x.png", "label": None, "wsi": None, "split": None, "prob": None}
    neighbour = {"rank": 1, "cosine": 0.5, "id": "b0", "label": None, "prob": None, "wsi": "b", "split": None}
    counts = {"itself": 0, "own_slide": 0, "duplicates": 0}
    assert result.to_dict() == {"k": 2, "queries": [{**query, "left_out": counts, "neighbours": [neighbour]}]}
    json.dumps(result.to_dict(), allow_nan=False)
