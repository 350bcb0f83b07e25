"""The pool of a fold, on a table small enough to read."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pcam_ssl.cross_validation.training_data import describe_pool
from pcam_ssl.data.dataset import Dataset
from pcam_ssl.data.folds import Folds, fold_unit, refit_unit
from pcam_ssl.data.pool import SOURCES, pool_facts, pool_rows, pool_sources, transductive
from pcam_ssl.tables import PATCH_COLUMNS, conform

# id, split, label, slide, fold, inner in fold 0, visible
PATCHES = [
    ("trained", "train", 1, "a", 1, False, True),
    ("hidden", "train", 0, "a", 1, False, False),
    ("inner", "train", 1, "b", 1, True, True),
    ("inner-hidden", "train", 0, "b", 1, True, False),
    ("scored", "train", 1, "c", 0, False, True),
    ("scored-hidden", "train", 0, "c", 0, False, False),
    ("alone", "train", None, "d", None, None, None),
    ("beside-trained", "valid", None, "a", None, None, None),
    ("beside-inner", "train", None, "b", None, None, None),
    ("beside-scored", "train", None, "c", None, None, None),
    ("test", "test", None, None, None, None, None),
    ("test-labelled", "test", 1, "e", None, None, None),
    ("test-of-scored", "test", None, "c", None, None, None),
    ("hidden-elsewhere", "train", 1, "f", 1, False, False),
]
POOL = ["hidden", "alone", "beside-trained", "test", "test-labelled", "hidden-elsewhere"]


def make(grouping: str = "slides", copies: dict[str, str] | None = None) -> tuple[Dataset, Folds]:
    """The dataset and folds of PATCHES; `copies` names patches with the pixels of another."""
    table = pd.DataFrame(PATCHES, columns=["id", "split", "label", "wsi", "fold", "inner_0", "visible"])
    hashes = [(copies or {}).get(name, name) for name in table.id]
    table = table.assign(row=range(len(table)), x=None, y=None, pixel_hash=hashes, view_hash="0")
    table = table.assign(**{name: 0.0 for name in PATCH_COLUMNS if name not in table})
    patches = conform(table.assign(wsi=pd.array(table.wsi, dtype="str")), PATCH_COLUMNS)
    frame = table[table.fold.notna()].reset_index(drop=True)
    frame = frame.assign(group=frame.wsi if grouping == "slides" else frame.id, inner_1=False)
    frame = frame.astype({"fold": "Int8", "inner_0": bool, "visible": bool})
    return Dataset(Path("none"), {}, patches, np.empty((0, 1, 1, 3), np.uint8)), Folds(frame, grouping)


def pool(k: int = 0, **how) -> list[str]:
    dataset, folds = make(**how)
    return pool_rows(dataset, folds, fold_unit(folds, k)).id.tolist()


def test_the_pool_has_no_visible_labels_and_no_scored_or_inner_slides():
    assert pool() == POOL


def test_each_patch_of_the_pool_has_its_source():
    dataset, folds = make()
    unit = fold_unit(folds, 0)
    sources = pool_sources(dataset, folds, unit).tolist()
    assert sources == ["hidden", "unlabelled", "unlabelled", "test", "test", "hidden"]
    assert {name: sources.count(name) for name in SOURCES}.items() <= pool_facts(dataset, folds, unit).items()


def test_another_fold_has_another_pool():
    assert pool(1) == ["scored-hidden", "alone", "beside-scored", "test", "test-labelled", "test-of-scored"]


def test_labels_of_the_pool_are_masked():
    dataset, folds = make()
    rows = pool_rows(dataset, folds, fold_unit(folds, 0))
    assert rows.label.isna().all()
    assert list(rows) == list(PATCH_COLUMNS)
    assert rows.label.dtype == "Int8"
    assert dataset.patches.label.notna().sum() == 8  # the dataset keeps its own


@pytest.mark.parametrize("of", ["scored", "scored-hidden", "inner"])
def test_copies_of_scored_or_inner_patches_are_excluded(of):
    assert pool(copies={"alone": of, "hidden": of}) == [name for name in POOL if name not in ("alone", "hidden")]


def test_copies_of_training_patches_stay_in_the_pool():
    assert pool(copies={"alone": "trained"}) == POOL


def test_random_folds_split_slides_also_in_the_pool():
    more = ["inner-hidden", "beside-inner", "beside-scored", "test-of-scored"]  # fold 0 scores "scored-hidden" itself
    assert pool(grouping="none") == [row[0] for row in PATCHES if row[0] in {*POOL, *more}]


def test_the_refit_pools_all_but_its_labels_and_the_inner_slides():
    dataset, folds = make()
    names = pool_rows(dataset, folds, refit_unit(folds)).id.tolist()
    assert names == ["hidden", "scored-hidden", *POOL[1:3], "beside-scored", *POOL[3:5], "test-of-scored", POOL[5]]


@pytest.fixture
def facts():
    dataset, folds = make(copies={"alone": "scored"})
    return pool_facts(dataset, folds, fold_unit(folds, 0))


def test_facts_count_the_pool_by_source(facts):
    assert {name: facts[name] for name in ("patches", "test", "unlabelled", "hidden")} == {
        "patches": 5,
        "test": 2,
        "unlabelled": 1,
        "hidden": 2,
    }


def test_facts_count_transductive_patches_and_those_without_slide(facts):
    assert (facts["on_training_slides"], facts["without_slide"]) == (2, 1)  # hidden, beside-trained; test


def test_facts_count_excluded_patches(facts):
    # By slide: inner-hidden, beside-inner, beside-scored, test-of-scored.
    assert (facts["left_out_slides"], facts["left_out_copies"]) == (4, 1)


def test_the_pool_in_words(facts):
    assert describe_pool(facts) == (
        "5 patches without labels (2 test, 1 unlabelled, 2 hidden); "
        "2 of them on slides that also have training labels (learning from them is transductive); 1 of unknown slide; "
        "5 more excluded: on scored or inner slides, or copies of such patches"
    )


def test_the_share_of_scored_patches_in_the_pool_of_any_fold():
    dataset, folds = make()
    ids = pd.Series(["test", "test-labelled", "test-of-scored", "inner"])
    assert transductive(dataset, folds, ids, learned=True) == {"transductive": True, "in_pool": 0.75}
    assert transductive(dataset, folds, ids[3:], learned=True) == {"transductive": False, "in_pool": 0.0}
    assert transductive(dataset, folds, ids, learned=False) == {"transductive": False, "in_pool": 0.0}
